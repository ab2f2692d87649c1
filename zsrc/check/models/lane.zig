//! A native lane as zsrc/parallel/lane.zig puts it together, for models: an M is a thread of the
//! model, a goroutine runs on a stack of its own, and what switches between them, makes and ends
//! threads, preempts and watches is the library's code. The network is a note.
//!
//! Goroutines are functions, as in C: `enter` and `leave` around calls of the runtime. Time moves
//! on when a time-out comes, or when a model says so. There is no sysmon unless a model starts it,
//! so that what it would repair is found.
const std = @import("std");
const arch = @import("../../arch/arch.zig");
const check = @import("../explorer.zig");
const engine = @import("../engine.zig");
const types = @import("../../parallel/types.zig");
const proc = @import("../../parallel/proc.zig");
const Interrupted = @import("../../parallel/interrupt.zig").Interrupted;
const Quiet = @import("world.zig").Quiet;
const Tunables = @import("../../core/tunables.zig").Tunables;

pub const Setup = struct {
    procs: u32,
    /// GOMAXPROCS at first.
    live: ?u32 = null,
    max_threads: u32 = 8,
    /// Threads are made by the starter. Otherwise whoever wants an M gets it at once.
    starter: bool = false,
    /// How long an M rests before it ends, if there are many.
    m_idle_ns: ?u64 = null,
    /// Preempted goroutines are in registered text, so that the handler switches away.
    registered: bool = false,
};

pub fn Lane(comptime Sim: type, comptime setup: Setup) type {
    return struct {
        const lane = @This();
        pub const Env = Quiet(Sim);
        pub const Sched = proc.Proc(Env, Host);
        pub const G = Sched.G;
        pub const M = Sched.M;
        pub const P = Sched.P;
        pub const Batch = Sched.Batch;
        pub const Timers = Sched.T.Timers;
        pub const switching = @import("../../parallel/switching.zig").Switching(lane);
        pub const threads = @import("../../parallel/threads.zig").Threads(lane);
        pub const sysmon = @import("../../parallel/sysmon.zig").Sysmon(lane);
        pub const interrupt = @import("../../parallel/interrupt.zig").Interrupt(lane);
        pub const events = no_events;
        pub const sync = struct {
            const Rt = switching.Rt;
            pub const Mutex = @import("../../sync/mutex.zig").Mutex(Rt);
            pub const Cond = @import("../../sync/cond.zig").Cond(Rt);
            pub const WaitGroup = @import("../../sync/waitgroup.zig").WaitGroup(Rt);
            pub const Semaphore = @import("../../sync/semaphore.zig").Semaphore(Rt, false);
        };
        /// Null: Ms rest for ever from then on.
        pub var m_idle_ns: ?u64 = null;

        pub var sched: Sched = .{};
        pub var arena: Arena = .{};
        pub var gpa: std.mem.Allocator = undefined;
        pub var next_id: std.atomic.Value(u64) = .init(1);
        pub var foreign_spawns: std.atomic.Value(u64) = .init(0);
        pub var options: Options = .{};
        var ps: [setup.procs]P = undefined;
        var ms: [engine.max_threads]?*M = @splat(null);
        var network: Network = .{};
        /// So many threads for Ms the system refuses from here on.
        pub var refusals: u32 = 0;
        /// Of the C library: to make a thread takes it.
        pub var malloc: Sim.Lock = .{};
        var made: u32 = 0;
        var helpers: u32 = 0;

        /// Every round of sysmon preempts, and retakes.
        pub const Options = struct {
            preempt_async: bool = true,
            retake_enabled: bool = true,
        };

        var own_tunables: Tunables = .{
            .preempt_slice_ns = .init(0),
            .sysmon_sleep_min_ns = .init(10),
            .sysmon_sleep_max_ns = .init(10),
            .sysmon_idle_rounds = .init(0),
            .retake_threshold_ns = .init(0),
            .retake_threshold_idle_ns = .init(0),
            .native_steal_rounds = .init(1),
        };
        pub const tunables = &own_tunables;

        const Network = struct {
            wanted: bool = false,
            poller: Sim.Note = .{},
            lock: Sim.Lock = .{},
            ready: Batch = .{},
        };

        // ---- what the scheduler asks of its host ----

        pub const Host = struct {
            pub const Start = types.Call;
            pub const tunables = lane.tunables;
            pub const sleepM = threads.sleepM;

            pub fn newM(s: *Sched, p: *P, spinning: bool) void {
                if (setup.starter) return threads.newM(s, p, spinning);
                const m = gpa.create(M) catch unreachable;
                m.* = .{ .nextp = p, .spinning = spinning };
                spawnM(m);
            }

            pub fn warnThreadLimit(_: *Sched) void {}

            pub fn wakeSysmon(_: *Sched) void {
                sysmon.wake();
            }

            pub fn letRun(_: *P) void {}
            pub fn noteReady(_: *P, _: *G) void {}
            pub fn noteSteal(_: *P, _: *P, _: *G, _: u64) void {}

            pub fn pollWanted(_: *Sched) bool {
                return network.wanted;
            }

            pub fn poll(_: *Sched, delay_ns: ?u64, out: *Batch) void {
                if (delay_ns == 0) Sim.spin() else {
                    _ = network.poller.sleep(delay_ns);
                    network.poller.clear();
                }
                network.lock.lock();
                defer network.lock.unlock();
                while (network.ready.pop()) |g| {
                    g.transition(.waiting, .runnable);
                    out.push(g);
                }
            }

            pub fn pollBreak(_: *Sched) void {
                network.poller.wake();
            }
        };

        // ---- what the Ms ask of it ----

        pub const Os = struct {
            pub const Thread = Env.Thread;

            pub fn spawn(
                function: *const fn (?*anyopaque) void,
                arg: ?*anyopaque,
                _: struct { signals: enum { blocked } },
            ) error{ThreadLimit}!Thread {
                if (function != &threads.mMain) {
                    helpers += 1;
                    const starter = setup.starter and helpers == 1;
                    return Thread.spawn(if (starter) "starter" else "sysmon", function, arg);
                }
                if (refusals > 0) {
                    refusals -= 1;
                    return error.ThreadLimit;
                }
                malloc.lock();
                defer malloc.unlock();
                const m: *M = @ptrCast(@alignCast(arg.?));
                const names = [_][]const u8{ "m0", "m1", "m2", "m3", "m4", "m5", "m6", "m7" };
                if (m.id >= names.len) check.fail("more Ms than there is work for", .{});
                return Thread.spawn(names[m.id], function, arg);
            }

            pub fn sleepNs(ns: u64) void {
                var nobody: Sim.Note = .{};
                _ = nobody.sleep(ns);
            }

            pub fn threadId() i32 {
                return 0;
            }

            pub fn preciseSleep() void {}
            pub fn promptWake() void {}
        };

        pub fn lookForDeadlock() ?u64 {
            return null;
        }

        pub inline fn current() ?*G {
            return arena.find(arch.stackPointer());
        }

        pub fn currentM() ?*M {
            return ms[Sim.self()];
        }

        pub fn enterThread(m: *M) void {
            check.nameFields(m, "m");
            ms[Sim.self()] = m;
            m.tid = @intCast(Sim.self() + 1);
        }

        pub fn leaveThread(m: *M) void {
            m.tid = 0;
            ms[Sim.self()] = null;
        }

        pub fn signal(m: *M) bool {
            return m.tid > 0 and Sim.signal(@intCast(m.tid - 1), handler, m);
        }

        pub fn bringHere(_: *M) void {}
        pub fn letMove(_: *M) void {}
        pub fn rest(_: *M) void {}

        fn handler(raw: ?*anyopaque) void {
            const m: *M = @ptrCast(@alignCast(raw.?));
            _ = interrupt.onSignal(m, .{ .pc = 0, .sp = arch.stackPointer() });
        }

        pub fn preemptible(_: usize) bool {
            return setup.registered;
        }

        pub const Holds = enum { nothing, state, lock };

        pub inline fn holds() Holds {
            return .nothing;
        }

        // ---- stacks ----

        /// A G lies at the high end of its stack.
        pub const Arena = struct {
            base: usize = 0,
            fresh: usize = 0,
            free: Batch = .{},

            const g_size = std.mem.alignForward(usize, @sizeOf(G), 64);

            pub fn find(a: *const Arena, address: usize) ?*G {
                if (address -% a.base >= a.fresh * engine.stack_size) return null;
                return a.at((address - a.base) / engine.stack_size);
            }

            pub fn at(a: *const Arena, i: usize) *G {
                return @ptrFromInt(a.base + (i + 1) * engine.stack_size - g_size);
            }

            pub fn lowEnd(a: *const Arena, g: *G) usize {
                return (@intFromPtr(g) - a.base) / engine.stack_size * engine.stack_size + a.base;
            }

            pub fn get(a: *Arena, _: usize) error{OutOfMemory}!Batch {
                var out: Batch = .{};
                out.push(a.free.pop() orelse fresh: {
                    if (a.fresh == engine.spare_stacks) return error.OutOfMemory;
                    a.fresh += 1;
                    const g = a.at(a.fresh - 1);
                    g.* = .{};
                    const names = [_][]const u8{ "g0", "g1", "g2", "g3", "g4", "g5", "g6", "g7" };
                    check.nameFields(g, names[a.fresh - 1]);
                    break :fresh g;
                });
                return out;
            }

            pub fn put(a: *Arena, batch: *Batch) void {
                while (batch.pop()) |g| a.free.pushFront(g);
            }

            pub fn scavenge(_: *Arena, _: u64) bool {
                return false;
            }

            pub fn hasSurplus(_: *Arena) bool {
                return false;
            }
        };

        // ---- of models: before there are threads ----

        pub const Function = *const fn (?*anyopaque) callconv(.c) void;

        /// All Ps are idle, and there is no M.
        pub fn start() void {
            sched = .{ .max_threads = setup.max_threads };
            check.nameFields(&sched, "sched");
            arena = .{ .base = engine.the_engine.spareStacks() };
            gpa = Sim.gpa();
            next_id.raw = 1;
            foreign_spawns.raw = 0;
            options = .{};
            ms = @splat(null);
            network = .{};
            refusals = 0;
            malloc = .{};
            // Beside those that the starter counts.
            made = if (setup.starter) 4 else 0;
            helpers = 0;
            m_idle_ns = setup.m_idle_ns;
            for (&ps, 0..) |*p, i| {
                p.* = .{ .id = @intCast(i), .rng = 0x9E3779B97F4A7C15 *% (i + 1) };
                check.nameFields(p, ([_][]const u8{ "p0", "p1", "p2", "p3" })[i]);
                sched.allp[i] = p;
            }
            sched.nallp.raw = setup.procs;
            sched.gomaxprocs.raw = setup.live orelse setup.procs;
            _ = sched.setProcs(sched.gomaxprocs.raw);
            threads.forget();
            sysmon.forget();
            if (setup.starter) threads.start() catch unreachable;
        }

        pub const startSysmon = sysmon.start;

        /// From here on there is a network to poll.
        pub fn wantNetwork() void {
            network.wanted = true;
        }

        /// A goroutine that has not started yet, and is in no queue.
        pub fn make(function: Function, arg: *anyopaque) *G {
            var batch = arena.get(1) catch unreachable;
            const g = batch.pop().?;
            g.id = next_id.raw;
            next_id.raw += 1;
            foreign_spawns.raw += 1;
            switching.prepare(g, .{ .function = function, .arg = arg });
            return g;
        }

        /// An M that holds a P, to run these first.
        pub fn startM(first: []const *G) void {
            const p = sched.idle_p.?;
            sched.idle_p = p.idle_next;
            p.idle_next = null;
            sched.npidle.raw -= 1;
            sched.mcount += 1;
            for (first) |g| sched.putLast(p, g);
            const m = gpa.create(M) catch unreachable;
            m.* = .{ .nextp = p };
            spawnM(m);
        }

        /// An M that holds none.
        pub fn startIdleM() void {
            sched.mcount += 1;
            const m = gpa.create(M) catch unreachable;
            m.* = .{};
            spawnM(m);
        }

        fn spawnM(m: *M) void {
            m.id = made;
            made += 1;
            m.thread = Os.spawn(threads.mMain, m, .{ .signals = .blocked }) catch
                return sched.newMFailed(m.nextp.?, m.spinning);
        }

        // ---- what goroutines and threads do ----

        /// The calling goroutine yields.
        pub fn gosched() void {
            const g = switching.enter().?;
            switching.gosched(g);
            switching.leave(g);
        }

        pub fn go(function: Function, arg: *anyopaque) void {
            switching.go(.{ .function = function, .arg = arg }) catch unreachable;
        }

        /// What one goroutine computes for and another brings about, in C code that may be
        /// interrupted anywhere. To the model, one that computes does nothing meanwhile.
        pub const Event = struct {
            note: Sim.Note = .{},

            pub fn computeUntil(e: *Event) void {
                while (e.note.sleep(null) != .woken) {}
            }

            pub fn happens(e: *Event) void {
                e.note.wake();
            }
        };

        // ---- the end ----

        /// Whether all goroutines have ended.
        pub fn rests() bool {
            return switching.goroutineCount() == 0;
        }

        /// When no thread can go on: all is idle and counted so.
        pub fn end() void {
            const s = &sched;
            check.expect(switching.goroutineCount() == 0, "a goroutine is left");
            check.expect(s.queue.list.len == 0 and s.queue.len.raw == 0, "the queue is empty");
            check.expect(s.nmspinning.raw == 0, "nobody spins");
            var live: u32 = 0;
            for (&ps) |*p| {
                check.expect(p.runq.isEmpty(), "the local queues are empty");
                const idle = p.status.raw == .idle;
                check.expect(idle or p.status.raw == .dead, "a P is held by nobody");
                live += @intFromBool(idle);
                check.expect(idle == (p.id < s.gomaxprocs.raw), "Ps beyond GOMAXPROCS are dead");
                check.expect(p.timers.isEmpty(), "no timer is left");
            }
            check.expect(s.npidle.raw == live, "npidle is the number of idle Ps");
            var listed: u32 = 0;
            var at = s.idle_p;
            while (at) |p| : (at = p.idle_next) listed += 1;
            check.expect(listed == live, "all idle Ps are listed");
            var idle_ms: u32 = 0;
            var m = s.idle_m;
            while (m) |each| : (m = each.idle_next) idle_ms += 1;
            check.expect(s.nmidle.raw == idle_ms, "nmidle is the number of idle Ms");
            const polls: u32 = @intFromBool(s.lastpoll.raw == 0);
            check.expect(s.mcount == idle_ms + polls, "Ms are idle, or in the poller");
        }
    };
}

/// Of parallel/events.zig: none are wanted.
const no_events = struct {
    const Kind = @import("../../parallel/events.zig").Kind;

    pub inline fn wants(_: Kind) bool {
        return false;
    }

    pub inline fn wantsAny(comptime _: []const Kind) bool {
        return false;
    }

    pub inline fn record(_: anytype, _: Kind, _: u64, _: u64, _: u32) void {}
    pub inline fn recordShared(_: Kind, _: u64, _: u64, _: u32) void {}
    pub inline fn created(_: anytype, _: anytype, _: u64) void {}
    pub inline fn started(_: anytype) void {}
    pub inline fn ended(_: anytype, _: anytype) void {}
    pub inline fn preempted(_: anytype, _: anytype, _: bool) void {}
};
