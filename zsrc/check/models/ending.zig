//! The end of a run of a serial lane: zsrc/serial/ending.zig, threads.zig and taking.zig as they
//! are, with a small lane around them. Its Ms are threads of the model, its goroutines have stacks
//! of their own, and the host's lock is let go in each switch, as the interpreter's is.
//!
//! In one of them there is room for two threads only, and the thread that is to run the lane may be
//! just on its way home. In another the host's lock is hard to come by, so that more Ms are sent
//! for it than there is room for.
//!
//! A thread runs the lane twice. In the first run the main goroutine gives its P up, blocks and
//! ends without it, at any time: an M that was sent for the P may not be there yet, run another
//! goroutine, be in the middle of a switch, be in a blocking call with the P or without, or rest.
//! What the run gives up comes back when it likes, which may be in the second run or after it.
//!
//! Nothing of a stray may reach the lane, a run may not end before all of its other Ms are gone,
//! and the second one has to find nothing of the first.
const std = @import("std");
const arch = @import("../../arch/arch.zig");
const check = @import("../explorer.zig");
const engine = @import("../engine.zig");
const ending = @import("../../serial/ending.zig");
const threads_mod = @import("../../serial/threads.zig");
const taking = @import("../../serial/taking.zig");
const list = @import("../../core/list.zig");
const os = @import("../../os/os.zig");
const Tunables = @import("../../core/tunables.zig").Tunables;
const Status = @import("../../serial/g.zig").Status;
const duties = @import("../../serial/m.zig");
const Allocator = std.mem.Allocator;

/// What the first run's other goroutines do, on the M that has the P.
const What = enum {
    /// Two give way to each other. Meanwhile sysmon has a third M take the P from whoever has it.
    switches,
    /// One blocks with the P.
    blocks,
    /// One gives its P up, to a third M, and blocks.
    loses,
    /// One ends at once: its M rests. Meanwhile sysmon has another thread made, for an errand.
    rests,
    /// One after the other wakes the main one, which waits without its P, and ends. There is one M
    /// besides, and sysmon sends that on an errand.
    wakes,
    /// One after the other blocks with the P, and whoever takes the lock has waited for it: where
    /// the P is taken from one, others are sent to have it from the next.
    reserves,
};

const Kind = enum { main, switches, blocks, loses, ends, wakes };

fn Run(comptime Sim: type, comptime what: What) type {
    return struct {
        const Self = @This();
        pub const threads = .{.{ "main", life }};

        fn life(_: *Self) void {
            for (0..2) |_| lane.run();
        }

        pub fn init(_: *Self, _: Allocator) !void {
            lane = .{};
            runs = 0;
            gil = .{};
            ms = @splat(null);
            currents = @splat(null);
            made = 0;
            stacks = 0;
            clock = 0;
            check.nameFields(&lane, "lane");
            check.nameFields(&gil, "lock");
        }

        /// When all threads have ended, those of strays too.
        pub fn end(_: *Self) void {
            for (ms[0..made]) |m| check.expect(m.?.gone, "an M is left");
        }

        const names = [_][]const u8{
            "m0", "m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "m9", "m10", "m11",
        };
        var lane: Lane = .{};
        var runs: u32 = 0;
        var gil: Sim.Lock = .{};
        var ms: [names.len]?*M = undefined;
        var made: u32 = 0;
        var currents: [engine.max_threads]?*M = undefined;
        var stacks: u32 = 0;
        /// Moves on whenever it is read, where it is hard to get the lock.
        var clock: u64 = 0;

        const G = struct {
            id: u64 = 0,
            sp: usize = 0,
            m: ?*M = null,
            next: ?*G = null,
            kind: Kind,
            generation: u32 = 0,
            status: Status = .runnable,
            detached: Sim.Atomic(bool) = .init(false),
            buried: bool = false,

            pub fn transition(g: *G, from: Status, to: Status) void {
                if (g.status != from)
                    check.fail("a goroutine is {t}, not {t}", .{ g.status, from });
                g.status = to;
            }
        };

        /// As m.zig's.
        const M = struct {
            id: u32 = 0,
            sp: usize = 0,
            curg: ?*G = null,
            lost: Sim.Atomic(bool) = .init(false),
            locked_g: ?*G = null,
            ending: bool = false,
            dismissed: bool = false,
            state: Sim.Atomic(?*G) = .init(null),
            main: bool = false,
            generation: u32 = 0,
            stray: bool = false,
            left: ?*G = null,
            note: Note = .{},
            duty: duties.Duty = .none,
            about: duties.About = .{},
            lock_waited_ns: u64 = 0,
            thread: ?Env.Thread = null,
            known: Sim.Atomic(bool) = .init(false),
            due: Sim.Atomic(u32) = .init(0),
            fault: Env.FaultStack = .{},
            next_idle: ?*M = null,
            next_all: ?*M = null,
            /// Its memory has been freed.
            gone: bool = false,

            pub fn rest(m: *M, timeout_ns: ?u64) os.Wake {
                return m.note.sleep(timeout_ns);
            }
        };

        /// Of an M, which may be gone.
        const Note = struct {
            word: Sim.Atomic(u32) = .init(0),

            fn note(n: *Note) *Sim.Note {
                const m: *M = @alignCast(@fieldParentPtr("note", n));
                check.expect(!m.gone, "the note of an M is used that is gone");
                return @ptrCast(n);
            }

            pub fn clear(n: *Note) void {
                n.note().clear();
            }

            pub fn wake(n: *Note) void {
                Sim.yieldPoint();
                n.note().wake();
            }

            pub fn sleep(n: *Note, timeout_ns: ?u64) os.Wake {
                return n.note().sleep(timeout_ns);
            }
        };

        const RealG = G;
        const RealM = M;

        pub const Env = struct {
            pub const planted = Sim.planted;
            pub const G = RealG;
            pub const M = RealM;
            pub const glances = 2;

            pub fn nanotime() u64 {
                if (what != .reserves) return Sim.nanotime();
                clock += 2 * std.time.ns_per_ms;
                return clock;
            }

            pub const Thread = struct {
                sim: Sim.Thread,

                pub fn join(t: Thread) void {
                    t.sim.join();
                }

                pub fn detach(_: Thread) void {}
            };

            pub const FaultStack = struct {
                memory: []u8 = &.{},
                pub const size = 0;

                pub fn enter(_: *FaultStack, _: []u8) void {}
                pub fn leave(_: *FaultStack) void {}
            };

            pub fn current() ?*RealM {
                return currents[Sim.self()];
            }

            pub fn setCurrent(m: ?*RealM) void {
                currents[Sim.self()] = m;
            }

            pub fn spawn(
                function: *const fn (?*anyopaque) void,
                arg: ?*anyopaque,
                _: anytype,
            ) error{ThreadLimit}!Thread {
                return .{ .sim = Sim.Thread.spawn(names[made - 1], function, arg) };
            }

            pub fn sleepNs(ns: u64) void {
                var nobody: Sim.Note = .{};
                _ = nobody.sleep(ns);
            }
        };

        const Host = struct {
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
                m.state.store(null, .release);
                if (!m.main) gil.unlock();
            }

            pub fn stateOf(g: *G) *G {
                return g;
            }

            /// Lets the lock go, and takes it back.
            pub fn swap(m: *M, next: ?*G) void {
                gil.unlock();
                gil.lock();
                m.state.store(if (next) |g| stateOf(g) else null, .monotonic);
            }

            pub fn armPreempt(_: *G) void {}
            pub fn onSignal() void {}
            pub fn pollBreak() void {}

            pub fn bury(g: *G) void {
                check.expect(!g.buried, "a goroutine is buried twice");
                g.buried = true;
            }
        };

        const Memory = struct {
            pub fn create(_: Memory, comptime T: type) Allocator.Error!*T {
                const m = try Sim.gpa().create(T);
                ms[made] = m;
                made += 1;
                check.nameFields(m, "m");
                return m;
            }

            /// It is not used for others, so that late users are told.
            pub fn destroy(_: Memory, m: *M) void {
                m.gone = true;
            }

            pub fn alloc(_: Memory, comptime T: type, _: usize) Allocator.Error![]T {
                return &.{};
            }

            pub fn free(_: Memory, _: []u8) void {}
        };

        /// sysmon, as far as ending.zig knows it. Here it sends an M at any time, once.
        const Sysmon = struct {
            thread: ?Env.Thread = null,
            note: Sim.Note = .{},
            stopping: Sim.Atomic(bool) = .init(false),
            waiting: Sim.Atomic(bool) = .init(false),
            helpers: Sim.Atomic(u32) = .init(0),

            fn loop(raw: ?*anyopaque) void {
                const s: *Sysmon = @ptrCast(@alignCast(raw.?));
                const tick = lane.tick.load(.monotonic);
                const duty: duties.Duty = switch (what) {
                    .switches => .hand_off,
                    .wakes, .reserves => .retake,
                    else => .preempt,
                };
                lane.startM(duty, .{ .tick = tick }) catch
                    check.expect(what == .wakes, "no thread");
                while (!s.stopping.load(.acquire)) {
                    _ = s.note.sleep(null);
                    s.note.clear();
                }
            }
        };

        /// A queue that is empty.
        const Nobody = struct {
            pub fn pop(_: @This()) ?*G {
                return null;
            }
        };

        const Lane = struct {
            gpa: Memory = .{},
            options: struct {
                max_threads: u32 = switch (what) {
                    .wakes => 2,
                    .reserves => 5,
                    else => 8,
                },
            } = .{},
            tunables: Tunables = .{ .retake_threshold_idle_ns = .init(0) },
            live: bool = false,
            generation: u32 = 0,
            m_lock: Sim.Lock = .{},
            all_m: ?*M = null,
            idle_m: ?*M = null,
            idle_count: Sim.Atomic(u32) = .init(0),
            next_m_id: u32 = 0,
            m0: *M = undefined,
            runner_owed: bool = false,
            dismissed: u32 = 0,
            counters: struct {
                threads: Sim.Atomic(u32) = .init(0),
                handoffs: u64 = 0,
                retakes: u64 = 0,
                retakes_in_vain: u64 = 0,
            } = .{},
            owner: Sim.Atomic(?*M) = .init(null),
            running: ?*G = null,
            attention: Sim.Atomic(bool) = .init(false),
            tick: Sim.Atomic(u64) = .init(0),
            lost_count: usize = 0,
            offering: bool = false,
            reserves: usize = 0,
            reinforced_at: u64 = 0,
            blocked_tick: Sim.Atomic(u64) = .init(std.math.maxInt(u64)),
            blocked_since: Sim.Atomic(u64) = .init(0),
            convoy_base: usize = 0,
            hog_tick: Sim.Atomic(u64) = .init(0),
            hog_turn: Sim.Atomic(u64) = .init(0),
            hog_turn_at: Sim.Atomic(u64) = .init(0),
            preempted: Nobody = .{},
            low: Nobody = .{},
            timers: struct {
                pub fn remove(_: @This(), _: *Timer) void {}
            } = .{},
            nudge_timer: Timer = .{},
            runner_sent: bool = false,
            /// What the main goroutine waits for.
            told: Sim.Note = .{},
            signal_for_main: bool = false,
            signal_mask: void = {},
            virtual_ns: u64 = 0,
            poller: ?*M = null,
            sysmon: Sysmon = .{},
            runq: list.Fifo(G) = .{},
            main_g: *G = undefined,
            main_done: bool = false,

            pub const Error = error{ OutOfMemory, ThreadLimit };
            const Timer = struct {};

            const ends = ending.Ending(Lane, Host, Env);
            const parts = threads_mod.Threads(Lane, Host, Env);
            pub const enlistM = parts.enlistM;
            pub const adoptThread = parts.adoptThread;
            pub const leaveThread = parts.leaveThread;
            pub const quitIdle = parts.quitIdle;
            pub const startM = parts.startM;
            pub const sendRunner = parts.sendRunner;
            pub const serve = parts.serve;
            pub const pushIdle = parts.pushIdle;
            pub const retire = parts.retire;
            pub const stray = ends.stray;
            pub const leaveStray = ends.leaveStray;
            pub const freeze = ends.freeze;
            const takes = taking.Taking(Lane, Env);
            pub const lose = takes.lose;
            pub const retake = takes.retake;
            pub const reserve = takes.reserve;
            pub const inVain = takes.inVain;
            const giveUpP = takes.giveUpP;

            /// As Lane.run in lane.zig, with nothing but the threads.
            fn run(self: *Lane) void {
                gil.lock();
                runs += 1;
                check.expect(self.all_m == null, "the lane has an M of the last run");
                self.* = .{ .generation = self.generation };
                const generation = self.generation;
                const m = self.gpa.create(M) catch unreachable;
                m.* = .{ .main = true };
                self.m0 = m;
                self.counters.threads.raw = 1;
                self.enlistM(m);
                self.adoptThread(m) catch unreachable;
                self.live = true;
                self.owner.store(m, .release);
                const watched = switch (what) {
                    .rests, .switches, .wakes, .reserves => true,
                    .blocks, .loses => false,
                };
                if (watched and runs == 1) self.sysmon.thread = .{
                    .sim = Sim.Thread.spawn("sysmon", Sysmon.loop, &self.sysmon),
                };
                self.main_g = self.go(.main);
                while (true) {
                    self.schedule(m);
                    if (self.main_done) break;
                    self.pushIdle(m);
                    Host.release(m);
                    _ = self.serve(m);
                    Host.acquire(m);
                    if (self.main_done) break;
                    if (self.owner.load(.monotonic) == null and self.runq.head != null)
                        self.owner.store(m, .release);
                }
                ends.stop(self, m);
                self.gpa.destroy(m);
                check.expect(self.all_m == null, "an M is listed after the end");
                check.expect(self.idle_m == null, "an M rests after the end");
                check.expect(self.counters.threads.raw == 0, "the count of threads is wrong");
                check.expect(self.reserves == 0, "the count of reserves is wrong");
                for (ms[0..made]) |other| if (other.?.generation == generation)
                    check.expect(other.?.gone or other.?.stray, "the run ends before all are home");
                gil.unlock();
            }

            pub fn dispose(_: *Lane) void {}
            pub fn wakeLocked(_: *Lane) void {}
            pub fn handleSignals(_: *Lane, _: *M) void {}
            pub fn record(_: *Lane, _: anytype, _: u64, _: u64, _: u64) void {}
            pub fn noteBlock(_: *Lane, _: *G, _: u64) void {}

            pub fn goNext(_: *Lane, _: *G) void {
                unreachable; // none is preempted
            }

            pub fn bumpTick(self: *Lane) u64 {
                self.tick.raw += 1;
                return self.tick.raw;
            }

            pub fn wakeP(self: *Lane) void {
                if (self.runq.head != null) self.sendRunner();
            }

            /// What has just begun to block may be taken for it.
            pub fn offerInterval(_: *Lane) u64 {
                return std.math.maxInt(u64);
            }

            pub fn attachment(_: *Lane, m: *M) enum { attached, detached, unsure } {
                const g = m.curg orelse return .attached;
                return if (g.detached.load(.monotonic)) .detached else .attached;
            }

            pub fn owns(self: *Lane, m: *M) bool {
                return self.live and m.generation == self.generation;
            }

            // ---- goroutines ----

            fn go(self: *Lane, kind: Kind) *G {
                const g = Sim.gpa().create(G) catch unreachable;
                g.* = .{ .kind = kind, .generation = self.generation };
                check.nameFields(g, @tagName(kind));
                const base = engine.the_engine.spareStacks() + stacks * engine.stack_size;
                stacks += 1;
                const top = base + engine.stack_size;
                g.sp = arch.prepare(base + 4096, top, enter, arch.environment());
                self.push(g);
                return g;
            }

            fn push(self: *Lane, g: *G) void {
                check.expect(
                    g.generation == self.generation,
                    "a goroutine of another run is queued",
                );
                self.runq.push(g);
            }

            fn pop(self: *Lane) ?*G {
                if (self.main_done) return null;
                return self.runq.pop();
            }

            fn putOn(self: *Lane, m: *M, g: *G) void {
                g.transition(.runnable, .running);
                g.m = m;
                m.curg = g;
                self.running = g;
                self.tick.raw += 1;
            }

            pub fn schedule(self: *Lane, m: *M) void {
                while (self.owner.load(.monotonic) == m) {
                    check.expect(!m.stray, "a stray has the P");
                    const g = self.pop() orelse {
                        self.owner.store(null, .release);
                        if (self.main_done and !m.main) self.m0.note.wake();
                        return;
                    };
                    self.putOn(m, g);
                    Host.swap(m, g);
                    arch.switchTo(&m.sp, g.sp);
                }
            }

            fn settle(self: *Lane, g: *G) void {
                check.expect(!g.m.?.stray, "a stray is in the middle of a switch");
                g.m = null;
                if (g.status != .runnable) return;
                self.push(g);
                if (self.owner.load(.monotonic) == null) self.sendRunner();
            }

            fn gosched(self: *Lane, g: *G) void {
                const m = g.m.?;
                g.transition(.running, .runnable);
                if (self.pop()) |next| {
                    self.putOn(m, next);
                    Host.swap(m, next);
                    self.settle(g);
                    arch.switchTo(&g.sp, next.sp);
                } else self.switchToG0(g);
            }

            fn switchToG0(self: *Lane, g: *G) void {
                const m = g.m.?;
                if (self.running == g) self.running = null;
                m.curg = null;
                self.tick.raw += 1;
                Host.swap(m, null);
                self.settle(g);
                arch.switchTo(&g.sp, m.sp);
            }

            fn found(self: *Lane, m: *M) void {
                check.expect(!m.stray, "a stray touches the lane");
                takes.found(self, m);
            }

            /// A call into others' code that lets the lock go.
            fn block(_: *Lane, g: *G) void {
                g.detached.store(true, .monotonic);
                gil.unlock();
                for (0..if (what == .reserves) 4 else 1) |_| Sim.yieldPoint();
                gil.lock();
                g.detached.store(false, .monotonic);
            }

            fn wait(self: *Lane, g: *G) void {
                g.detached.store(true, .monotonic);
                gil.unlock();
                _ = self.told.sleep(null);
                self.told.clear();
                gil.lock();
                g.detached.store(false, .monotonic);
            }

            /// Where the layer above calls the lane next.
            fn here(self: *Lane, g: *G) void {
                if (self.stray() != null) {
                    if (Sim.choose(2) == 0) self.freeze();
                    self.leaveStray(g.m.?, g);
                }
                while (self.running != g) {
                    const m = g.m.?;
                    if (self.owner.load(.monotonic) == null and !self.main_done) {
                        self.owner.store(m, .release);
                        self.found(m);
                        g.transition(.syscall, .running);
                        self.running = g;
                        continue;
                    }
                    g.transition(.syscall, .runnable);
                    m.curg = null;
                    Host.swap(m, null);
                    self.found(m);
                    self.settle(g);
                    arch.switchTo(&g.sp, m.sp);
                }
            }

            fn enter() callconv(.c) noreturn {
                const self = &lane;
                const g = Env.current().?.curg.?;
                self.body(g);
                self.exit(g);
            }

            fn body(self: *Lane, g: *G) void {
                // It may have lost the P in the switch that brought it here.
                self.here(g);
                switch (g.kind) {
                    .main => {
                        if (runs == 2) {
                            // The second run: another goroutine runs and ends.
                            _ = self.go(.ends);
                            self.gosched(g);
                            check.expect(self.runq.len == 0, "somebody else is queued");
                            return;
                        }
                        switch (what) {
                            .switches => for (0..2) |_| {
                                _ = self.go(.switches);
                            },
                            .blocks => _ = self.go(.blocks),
                            .reserves => for (0..4) |_| {
                                _ = self.go(.blocks);
                            },
                            .loses => {
                                _ = self.go(.loses);
                                _ = self.go(.switches);
                            },
                            .rests => _ = self.go(.ends),
                            .wakes => return for (0..2) |_| {
                                _ = self.go(.wakes);
                                self.giveUpP(g);
                                self.wait(g);
                                self.here(g);
                            },
                        }
                        self.giveUpP(g);
                        self.block(g);
                    },
                    .switches => {
                        self.gosched(g);
                        self.here(g);
                    },
                    .blocks => {
                        self.block(g);
                        self.here(g);
                    },
                    .loses => {
                        self.giveUpP(g);
                        self.block(g);
                        self.here(g);
                    },
                    .wakes => self.told.wake(),
                    .ends => {},
                }
            }

            fn exit(self: *Lane, g: *G) noreturn {
                const m = g.m.?;
                if (!self.owns(m)) self.leaveStray(m, g);
                if (g == self.main_g) {
                    self.main_done = true;
                    self.attention.store(true, .release);
                    if (!m.main) self.m0.note.wake();
                }
                if (g.status == .syscall) {
                    g.transition(.syscall, .running);
                    self.found(m);
                }
                g.transition(.running, .dead);
                if (self.running == g) self.running = null;
                m.curg = null;
                self.tick.raw += 1;
                Host.swap(m, null);
                check.expect(!m.stray, "a stray is in the middle of a switch");
                g.m = null;
                var discard: usize = undefined;
                arch.switchTo(&discard, m.sp);
                unreachable;
            }
        };
    };
}

pub fn Switches(comptime Sim: type) type {
    return Run(Sim, .switches);
}

pub fn Blocks(comptime Sim: type) type {
    return Run(Sim, .blocks);
}

pub fn Loses(comptime Sim: type) type {
    return Run(Sim, .loses);
}

pub fn Wakes(comptime Sim: type) type {
    return Run(Sim, .wakes);
}

pub fn Reserves(comptime Sim: type) type {
    return Run(Sim, .reserves);
}

pub fn Rests(comptime Sim: type) type {
    return Run(Sim, .rests);
}
