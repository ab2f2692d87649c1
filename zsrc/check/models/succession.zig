//! How the P of a serial lane goes from one M to another that is meant: zsrc/serial/succession.zig,
//! locked.zig, keeping.zig, threads.zig and ending.zig as they are, and a small lane around them.
//! Its goroutines have no stacks: where one is switched out its function returns, and is called
//! again.
//!
//! A goroutine is locked to an M, or keeps the one that it is on, and the others go on on an heir.
//! The run ends, or a signal arrives, at any time: the one that was appointed may be awake before
//! it is woken. Each M's memory goes when its thread ends: no thread may touch it later.
const std = @import("std");
const check = @import("../explorer.zig");
const serial = @import("serial.zig");
const ending = @import("../../serial/ending.zig");
const keeping = @import("../../serial/keeping.zig");
const locked = @import("../../serial/locked.zig");
const succession = @import("../../serial/succession.zig");
const sysmon = @import("../../serial/sysmon.zig");
const threads_mod = @import("../../serial/threads.zig");
const Status = @import("../../serial/g.zig").Status;
const duties = @import("../../serial/m.zig");
const os = @import("../../os/os.zig");
const Allocator = std.mem.Allocator;

const What = enum {
    /// One is locked to an M, and ends there, with the thread. The main goroutine waits for it.
    /// There is no signal.
    locked,
    /// One keeps its M while another runs. The main goroutine is without the P, and ends.
    kept,
    /// One keeps the main M, and the main goroutine ends elsewhere.
    kept_main,
    /// Two keep their Ms, and give way to each other. The main goroutine waits for both.
    in_turn,
};

const Kind = enum { main, locked, keeps, readies, gives_way };

/// How often each of two gives way to the other.
const turns = 2;

fn Run(comptime Sim: type, comptime what: What) type {
    return struct {
        const Self = @This();
        pub const threads = if (what == .kept_main)
            .{ .{ "main", life }, .{ "elsewhere", endsElsewhere } }
        else
            .{.{ "main", life }};

        var lane: Lane = .{};
        var gil: Sim.Lock = .{};
        var interrupted = false;
        /// The main goroutine may end.
        var begun: Sim.Note = .{};

        fn life(_: *Self) void {
            lane.run();
        }

        fn endsElsewhere(_: *Self) void {
            _ = begun.sleep(null);
            gil.lock();
            lane.endMain();
            gil.unlock();
        }

        pub fn init(_: *Self, _: Allocator) !void {
            lane = .{};
            gil = .{};
            machine.init();
            interrupted = what == .locked;
            begun = .{};
            check.nameFields(&lane, "lane");
            check.nameFields(&gil, "lock");
        }

        pub fn end(_: *Self) void {
            check.expect(machine.left() == 0, "an M is left");
        }

        const G = struct {
            kind: Kind,
            /// It has been switched out, and goes on.
            again: bool = false,
            turns: u32 = 0,
            next: ?*G = null,
            status: Status = .runnable,
            m: ?*M = null,
            locked_m: ?*M = null,
            lock_count: u32 = 0,
            placed: bool = false,
            timed: bool = false,
            deep: bool = true,
        };

        const M = struct {
            id: u32 = 0,
            curg: ?*G = null,
            lost: Sim.Atomic(bool) = .init(false),
            locked_g: ?*G = null,
            handed: bool = false,
            ending: bool = false,
            dismissed: bool = false,
            heir: ?*M = null,
            successor: ?*M = null,
            due: Due = .{},
            state: Sim.Atomic(?*G) = .init(null),
            main: bool = false,
            generation: u32 = 0,
            stray: bool = false,
            left: ?*G = null,
            note: Note = .{},
            passed_on: bool = false,
            duty: duties.Duty = .none,
            about: duties.About = .{},
            thread: ?Env.Thread = null,
            known: Sim.Atomic(bool) = .init(false),
            fault: Env.FaultStack = .{},
            next_idle: ?*M = null,
            next_all: ?*M = null,
            /// Its memory has been freed.
            gone: bool = false,

            const parts = succession.Succession(M, Sim);
            pub const appoint = parts.appoint;
            pub const wakeSuccessor = parts.wakeSuccessor;

            /// To look before it sleeps makes no difference to others.
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

            /// A signal of the program's interrupts any thread.
            pub fn sleep(n: *Note, timeout_ns: ?u64) os.Wake {
                if (timeout_ns != null or interrupted) return n.note().sleep(timeout_ns);
                const wake_up = n.note().sleep(1);
                if (wake_up != .timeout) return wake_up;
                interrupted = true;
                return .interrupted;
            }
        };

        const Due = struct {
            count: Sim.Atomic(u32) = .init(0),

            fn known(d: *Due) *Sim.Atomic(u32) {
                const m: *M = @alignCast(@fieldParentPtr("due", d));
                check.expect(!m.gone, "an M is counted that is gone");
                return &d.count;
            }

            pub fn load(d: *Due, comptime order: std.builtin.AtomicOrder) u32 {
                return d.known().load(order);
            }

            pub fn fetchAdd(d: *Due, n: u32, comptime order: std.builtin.AtomicOrder) u32 {
                Sim.yieldPoint();
                return d.known().fetchAdd(n, order);
            }

            pub fn fetchSub(d: *Due, n: u32, comptime order: std.builtin.AtomicOrder) u32 {
                Sim.yieldPoint();
                return d.known().fetchSub(n, order);
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

            pub fn release(m: *M) void {
                gil.unlock();
                if (Sim.planted != .releases_only) m.wakeSuccessor();
            }

            pub fn enterThread(_: *M) void {}

            pub fn leaveThread(m: *M) void {
                if (!m.main) gil.unlock();
            }

            pub fn stateOf(g: *G) *G {
                return g;
            }

            /// Lets the lock go, and takes it back.
            pub fn swap(_: *M, _: ?*G) void {
                gil.unlock();
                gil.lock();
            }

            pub fn keepsThread(_: *G) bool {
                return true;
            }

            pub fn armPreempt(_: *G) void {}
            pub fn carryMain(_: *M) void {}
            pub fn onSignal() void {}
            pub fn pollBreak() void {}
            pub fn bury(_: *G) void {}
        };

        const Lane = struct {
            gpa: machine.Memory = .{},
            options: struct { max_threads: u32 = 8, explore: bool = false } = .{},
            live: bool = false,
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
            counters: struct {
                threads: Sim.Atomic(u32) = .init(0),
                threads_kept: u64 = 0,
                threads_not_kept: u64 = 0,
            } = .{},
            owner: Sim.Atomic(?*M) = .init(null),
            running: ?*G = null,
            attention: Sim.Atomic(bool) = .init(false),
            tick: Sim.Atomic(u64) = .init(0),
            sysmon: struct {
                thread: ?Env.Thread = null,
                note: Sim.Note = .{},
                stopping: Sim.Atomic(bool) = .init(false),
                waiting: Sim.Atomic(bool) = .init(false),
                helpers: Sim.Atomic(u32) = .init(0),
            } = .{},
            signal_for_main: bool = false,
            signal_mask: void = {},
            virtual_ns: u64 = 0,
            poller: ?*M = null,
            poller_deadline: u64 = 0,
            timers: struct { earliest: Sim.Atomic(u64) = .init(0) } = .{},
            to_thread: ?*M = null,
            held: ?*G = null,
            held_waits: bool = false,
            locked_count: u32 = 0,
            turn: u32 = 0,
            chosen: bool = false,
            runq: ?*G = null,
            main_g: ?*G = null,
            kept: ?*G = null,
            left: u32 = 0,
            main_done: bool = false,

            pub const Error = error{ OutOfMemory, ThreadLimit };

            const ends = ending.Ending(Lane, Host, Env);
            const parts = threads_mod.Threads(Lane, Host, Env);
            pub const enlistM = parts.enlistM;
            pub const adoptThread = parts.adoptThread;
            pub const leaveThread = parts.leaveThread;
            pub const quitIdle = parts.quitIdle;
            pub const startM = parts.startM;
            pub const obtainM = parts.obtainM;
            pub const sendRunner = parts.sendRunner;
            pub const serve = parts.serve;
            pub const pushIdle = parts.pushIdle;
            pub const retire = parts.retire;
            const tied = locked.Locked(Lane, Host, Env);
            pub const passP = tied.passP;
            pub const leaveP = tied.leaveP;
            pub const wakeLocked = tied.wakeLocked;
            const keeps = keeping.Keeping(Lane, Host, Env);

            /// As Lane.run in lane.zig, with nothing but the threads.
            fn run(self: *Lane) void {
                gil.lock();
                defer gil.unlock();
                const m = self.gpa.create(M) catch unreachable;
                m.* = .{ .main = true };
                self.m0 = m;
                self.counters.threads.raw = 1;
                self.enlistM(m);
                self.adoptThread(m) catch unreachable;
                self.live = true;
                sysmon.own(self, m);
                self.main_g = self.go(.main);
                while (true) {
                    self.schedule(m);
                    if (self.main_done) break;
                    if (m.locked_g == null) self.pushIdle(m);
                    Host.release(m);
                    _ = self.serve(m);
                    Host.acquire(m);
                    if (self.main_done) break;
                    if (m.locked_g != null) continue;
                    if (self.owner.load(.monotonic) == null and self.anyRunnable())
                        sysmon.own(self, m);
                }
                ends.stop(self, m);
                check.expect(m.successor == null, "an M ends before it has woken its successor");
                self.gpa.destroy(m);
                check.expect(self.all_m == null, "an M is listed after the end");
                check.expect(self.counters.threads.raw == 0, "the count of threads is wrong");
            }

            /// As processor.zig's, with what findRunnable looks at.
            pub fn schedule(self: *Lane, m: *M) void {
                while (self.owner.load(.monotonic) == m) {
                    if (m.heir != null) return keeps.bequeath(self, m);
                    if (self.main_done) {
                        self.owner.store(null, .release);
                        if (!m.main) self.wakeMain();
                        return;
                    }
                    if (self.to_thread != null and self.passP(m)) return;
                    if (m.handed) {
                        m.handed = false;
                        self.body(m, m.locked_g.?);
                        continue;
                    }
                    if (m.locked_g != null or m.ending) return self.leaveP();
                    const g = self.runq orelse return self.owner.store(null, .release);
                    self.runq = g.next;
                    if (g.locked_m == null or !tied.belongsElsewhere(self, g)) self.body(m, g);
                }
            }

            fn body(self: *Lane, m: *M, g: *G) void {
                defer g.again = true;
                g.m = m;
                switch (g.kind) {
                    .main => switch (what) {
                        .locked => {
                            if (g.again) return self.endMain();
                            const tied_to = self.obtainM() catch unreachable;
                            const other = self.go(.locked);
                            other.lock_count = 1;
                            self.locked_count += 1;
                            tied.tie(other, tied_to);
                        },
                        .kept => {
                            self.kept = self.go(.keeps);
                            self.owner.store(null, .release);
                            self.wakeP();
                            gil.unlock();
                            Sim.yieldPoint();
                            gil.lock();
                            self.endMain();
                        },
                        .kept_main => self.kept = self.go(.keeps),
                        .in_turn => {
                            if (g.again) return self.endMain();
                            self.left = 2;
                            _ = self.go(.gives_way);
                            _ = self.go(.gives_way);
                        },
                    },
                    .locked => {
                        check.expect(g.locked_m == m, "a locked goroutine is on another M");
                        tied.exitLocked(self, g);
                        self.push(self.main_g.?);
                    },
                    .keeps => {
                        if (g.again) {
                            check.expect(g.locked_m == m, "a goroutine has not kept its M");
                            return keeps.freeThread(self, g);
                        }
                        _ = self.go(.readies);
                        check.expect(keeps.keepThread(self, g), "there is no heir");
                        begun.wake();
                        Host.swap(m, null);
                    },
                    .readies => self.push(self.kept.?),
                    .gives_way => {
                        if (g.again) {
                            check.expect(g.locked_m == m, "a goroutine has not kept its M");
                            keeps.freeThread(self, g);
                        }
                        if (g.turns == turns) {
                            self.left -= 1;
                            if (self.left == 0) self.push(self.main_g.?);
                            return;
                        }
                        g.turns += 1;
                        check.expect(keeps.keepThread(self, g), "there is no heir");
                        self.push(g);
                        Host.swap(m, null);
                    },
                }
            }

            fn endMain(self: *Lane) void {
                self.main_done = true;
                self.attention.store(true, .release);
                self.wakeMain();
            }

            fn go(self: *Lane, kind: Kind) *G {
                const g = Sim.gpa().create(G) catch unreachable;
                g.* = .{ .kind = kind };
                check.nameFields(g, @tagName(kind));
                self.push(g);
                return g;
            }

            fn push(self: *Lane, g: *G) void {
                var link = &self.runq;
                while (link.*) |other| link = &other.next;
                g.next = null;
                link.* = g;
            }

            pub fn wakeP(self: *Lane) void {
                if (self.live) self.sendRunner();
            }

            pub fn wakeMain(self: *Lane) void {
                self.m0.note.wake();
            }

            pub fn anyRunnable(self: *Lane) bool {
                return self.runq != null;
            }

            pub fn wantsG0(self: *Lane) bool {
                return self.to_thread != null;
            }

            pub fn takeTied(self: *Lane, m: *M) ?*G {
                if (self.main_done or self.wantsG0()) return null;
                const g = self.runq orelse return null;
                const own = g.locked_m orelse return null;
                if (own == m) return null;
                self.runq = g.next;
                return g;
            }

            pub fn owns(self: *Lane, m: *M) bool {
                return self.live and m.generation == self.generation;
            }

            pub fn attachment(_: *Lane, _: *M) enum { attached, detached, unsure } {
                return .attached;
            }

            pub fn noteTurn(_: *Lane, _: *G) void {
                unreachable; // nothing is timed
            }

            pub fn goNext(self: *Lane, g: *G) void {
                self.push(g);
            }

            pub fn dispose(_: *Lane) void {}
            pub fn handleSignals(_: *Lane, _: *M) void {}
            pub fn inVain(_: *Lane) void {}
            pub fn reserve(_: *Lane, _: *M) void {}
            pub fn retake(_: *Lane, _: *M, _: duties.Duty, _: u64) void {}
            pub fn lose(_: *Lane, _: *G) void {}
        };
    };
}

pub fn LockedEnds(comptime Sim: type) type {
    return Run(Sim, .locked);
}

pub fn Kept(comptime Sim: type) type {
    return Run(Sim, .kept);
}

pub fn KeptMain(comptime Sim: type) type {
    return Run(Sim, .kept_main);
}

pub fn InTurn(comptime Sim: type) type {
    return Run(Sim, .in_turn);
}
