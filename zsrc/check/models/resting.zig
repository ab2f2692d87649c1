//! A lane at rest between runs: zsrc/serial/resting.zig as it is, with ending.zig for the runs that
//! do not end in rest, threads.zig and sysmon's life of sysmon.zig, and a small lane around them.
//!
//! A thread runs the lane again and again. A run is of the same kind as the last or of another,
//! leaves something or nothing, and is over at once or when sysmon has looked at it. sysmon has an
//! eye on the P's M, and may send another M in the midst of a round, which finds nothing to do and
//! goes home. A run may fail to begin.
const std = @import("std");
const check = @import("../explorer.zig");
const serial = @import("serial.zig");
const ending = @import("../../serial/ending.zig");
const resting = @import("../../serial/resting.zig");
const sysmon = @import("../../serial/sysmon.zig");
const threads_mod = @import("../../serial/threads.zig");
const os = @import("../../os/os.zig");
const duties = @import("../../serial/m.zig");
const Allocator = std.mem.Allocator;

/// What the runs are like.
const What = enum {
    /// All of a kind, and they leave nothing.
    alike,
    /// Another kind, what is left behind, or no memory, in between.
    mixed,
    /// Alike, and sysmon sends an M.
    sent,
};

fn Runs(comptime Sim: type, comptime what: What) type {
    return struct {
        const Self = @This();
        pub const threads = .{.{ "main", life }};

        var lane: Lane = .{ .gpa = .{} };
        var gil: Sim.Lock = .{};
        var sends: u32 = 0;

        fn life(_: *Self) void {
            for (0..2) |i| {
                const differs = what == .mixed and Sim.choose(2) == 1;
                lane.run(.{ .seed = i, .kind = if (differs) i else 0 });
            }
            gil.lock();
            lane.endRest();
            gil.unlock();
        }

        pub fn init(_: *Self, _: Allocator) !void {
            lane = .{ .gpa = .{} };
            gil = .{};
            machine.init();
            sends = 0;
            check.nameFields(&lane, "lane");
            check.nameFields(&gil, "lock");
        }

        pub fn end(_: *Self) void {
            check.expect(machine.left() == 0, "an M is left");
            check.expect(!lane.allocated, "the lane is not given back");
        }

        /// There are none here.
        const G = struct { status: @import("../../serial/g.zig").Status = .dead };

        const M = struct {
            id: u32 = 0,
            curg: ?*G = null,
            lost: Sim.Atomic(bool) = .init(false),
            locked_g: ?*G = null,
            handed: bool = false,
            ending: bool = false,
            dismissed: bool = false,
            state: Sim.Atomic(?*G) = .init(null),
            main: bool = false,
            generation: u32 = 0,
            stray: bool = false,
            left: ?*G = null,
            note: Sim.Note = .{},
            duty: duties.Duty = .none,
            about: duties.About = .{},
            thread: ?Env.Thread = null,
            known: Sim.Atomic(bool) = .init(false),
            due: Sim.Atomic(u32) = .init(0),
            fault: Env.FaultStack = .{},
            next_idle: ?*M = null,
            next_all: ?*M = null,
            looked_at: Sim.Note = .{},
            /// Its memory has been freed.
            gone: bool = false,

            pub fn rest(m: *M, timeout_ns: ?u64) os.Wake {
                return m.note.sleep(timeout_ns);
            }
        };

        const machine = serial.Serial(Sim, G, M);
        pub const Env = machine.Env;

        const Host = struct {
            pub const inbox = struct {
                pub fn isEmpty() bool {
                    return true;
                }
            };

            pub fn lane() *Lane {
                return &Self.lane;
            }

            pub fn acquire(_: *M) void {
                gil.lock();
            }

            pub fn release(_: *M) void {
                gil.unlock();
            }

            pub fn enterThread(_: *M) void {}

            pub fn leaveThread(m: *M) void {
                if (!m.main) gil.unlock();
            }

            pub fn stateOf(g: *G) *G {
                return g;
            }

            pub fn swap(_: *M, _: ?*G) void {}
            pub fn armPreempt(_: *G) void {}
            pub fn onSignal() void {}
            pub fn pollBreak() void {}
            pub fn bury(_: *G) void {}
        };

        const State = struct {
            thread: ?Env.Thread = null,
            note: Sim.Note = .{},
            stopping: Sim.Atomic(bool) = .init(false),
            round: Sim.Lock = .{},
            resting: bool = false,
            waiting: Sim.Atomic(bool) = .init(false),
            helpers: Sim.Atomic(u32) = .init(0),
        };

        /// sysmon's part.
        const Rounds = struct {
            pub fn sleepFor(_: *Rounds) u64 {
                return 1;
            }

            pub fn slept(_: *Rounds) void {}
            pub fn woken(_: *Rounds) void {}

            pub fn look(_: *Rounds) void {
                check.expect(!lane.rests, "sysmon looks at a lane that is at rest");
                const generation = lane.generation;
                if (lane.owner.load(.acquire)) |m| {
                    _ = lane.tick.load(.monotonic);
                    check.expect(!m.gone, "sysmon looks at an M that is gone");
                    m.looked_at.wake();
                    if (what == .sent and sends == 0) send(m);
                }
                Sim.yieldPoint();
                check.expect(lane.generation == generation, "a round of sysmon's sees two runs");
            }

            fn send(m: *M) void {
                if (lane.sysmon.helpers.swap(1, .acq_rel) != 0) return;
                sends += 1;
                lane.startM(.retake, .{ .m = m.id, .tick = 0 }) catch unreachable;
            }

            fn main(_: ?*anyopaque) void {
                var rounds: Rounds = .{};
                sysmon.watch(&lane, &rounds);
            }
        };

        const Options = struct {
            max_threads: u32 = 8,
            keep: bool = true,
            event_mask: u32 = 0,
            seed: u64,
            explore_follows: bool = false,
            kind: u64,
        };

        const Lane = struct {
            gpa: machine.Memory,
            options: Options = undefined,
            rests: bool = false,
            live: bool = false,
            /// It has what `dispose` gives back.
            allocated: bool = false,
            generation: u32 = 0,
            m_lock: Sim.Lock = .{},
            all_m: ?*M = null,
            idle_m: ?*M = null,
            idle_count: Sim.Atomic(u32) = .init(0),
            next_m_id: u32 = 0,
            m0: *M = undefined,
            runner_owed: bool = false,
            runner_sent: bool = false,
            dismissed: u32 = 0,
            counters: struct { threads: Sim.Atomic(u32) = .init(0) } = .{},
            owner: Sim.Atomic(?*M) = .init(null),
            running: ?*G = null,
            attention: Sim.Atomic(bool) = .init(false),
            tick: Sim.Atomic(u64) = .init(0),
            sysmon: State = .{},
            reserves: usize = 0,
            signal_mask: void = {},
            virtual_ns: u64 = 0,
            /// A goroutine that is left.
            all_g: ?*G = null,
            stacks: struct { in_use: u32 = 0 } = .{},
            timers: struct {
                pub fn len(_: @This()) u32 {
                    return 0;
                }
            } = .{},
            lost_count: u32 = 0,
            poller: ?*M = null,
            net_waiters: u32 = 0,
            outside_waiters: u32 = 0,
            held: ?*G = null,
            to_thread: ?*M = null,
            refused: bool = false,
            signal_pending: bool = false,
            signal_for_main: bool = false,

            pub const Error = error{ OutOfMemory, ThreadLimit };
            pub const Env = Self.Env;

            const rest_parts = resting.Resting(Lane, Host, Self.Env);
            pub const rest = rest_parts.rest;
            pub const wakesFor = rest_parts.wakesFor;
            pub const restAgain = rest_parts.restAgain;
            pub const endRest = rest_parts.endRest;
            const ends = ending.Ending(Lane, Host, Self.Env);
            const parts = threads_mod.Threads(Lane, Host, Self.Env);
            pub const enlistM = parts.enlistM;
            pub const adoptThread = parts.adoptThread;
            pub const leaveThread = parts.leaveThread;
            pub const quitIdle = parts.quitIdle;
            pub const startM = parts.startM;
            pub const pushIdle = parts.pushIdle;
            pub const retire = parts.retire;

            /// As Lane.run in lane.zig, with nothing but its two ends.
            fn run(self: *Lane, options: Options) void {
                gil.lock();
                defer gil.unlock();
                const m = self.start(options) catch return;
                const leaves = what == .mixed and Sim.choose(2) == 1;
                // So long that sysmon has to attend to it, or not.
                if (Sim.choose(2) == 1) _ = m.looked_at.sleep(null);
                check.expect(self.options.seed == options.seed, "a run has the last one's options");
                check.expect(self.all_g == null, "a run finds a goroutine of the last one's");
                var left: G = .{};
                if (leaves) self.all_g = &left;
                if (!self.rest(m)) ends.stop(self, m);
                check.expect(self.rests or self.all_m == null, "an M is listed after the end");
                if (self.rests) {
                    check.expect(!leaves, "a run rests that has left something");
                    check.expect(machine.left() == 1, "a lane is at rest, and has a thread");
                }
                self.gpa.destroy(m);
            }

            fn start(self: *Lane, options: Options) Error!*M {
                const warm = self.wakesFor(options);
                if (!warm) {
                    self.endRest();
                    const generation = self.generation +% 1;
                    self.* = .{ .gpa = .{}, .options = options, .generation = generation };
                    self.allocated = true;
                }
                errdefer if (warm) self.restAgain() else self.dispose();
                if (what == .mixed and Sim.choose(2) == 1) return error.OutOfMemory;
                const m = try self.gpa.create(M);
                m.* = .{ .main = true };
                self.m0 = m;
                self.counters.threads.raw = 1;
                self.enlistM(m);
                self.adoptThread(m) catch unreachable;
                self.live = true;
                sysmon.own(self, m);
                if (!warm) self.sysmon.thread = .{
                    .sim = .spawn("sysmon", Rounds.main, null),
                };
                return m;
            }

            pub fn dispose(self: *Lane) void {
                check.expect(self.sysmon.thread == null, "sysmon outlives the lane");
                self.allocated = false;
            }

            pub fn owns(self: *Lane, m: *M) bool {
                return self.live and m.generation == self.generation;
            }

            /// What sysmon has sent an M for is over.
            pub fn attachment(_: *Lane, _: *M) enum { attached, detached, unsure } {
                return .attached;
            }

            pub fn wakeLocked(_: *Lane) void {}
            pub fn handleSignals(_: *Lane, _: *M) void {}
            pub fn inVain(_: *Lane) void {}
            pub fn reserve(_: *Lane, _: *M) void {}
            pub fn retake(_: *Lane, _: *M, _: duties.Duty, _: u64) void {}
            pub fn schedule(_: *Lane, _: *M) void {}
            pub fn lose(_: *Lane, _: *G) void {}
        };
    };
}

pub fn Alike(comptime Sim: type) type {
    return Runs(Sim, .alike);
}

pub fn Mixed(comptime Sim: type) type {
    return Runs(Sim, .mixed);
}

pub fn Sent(comptime Sim: type) type {
    return Runs(Sim, .sent);
}
