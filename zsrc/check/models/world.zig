//! A small world for the scheduler of zsrc/parallel/proc.zig: an M is a thread of the model, a
//! goroutine a record whose body runs from one wait to the next, the network one descriptor, whose
//! edge the kernel keeps until a thread fetches it. No thread plays sysmon unless a model does, so
//! that what it would repair is found.
//!
//! `loop` and `run` are those of switching.zig, where a context switch is a scheduling point: what
//! makes a goroutine visible to others, its `commit`, runs after the next one was chosen.
const std = @import("std");
const check = @import("../explorer.zig");
const proc = @import("../../parallel/proc.zig");
const desc = @import("../../netpoll/desc.zig");
const netpoll = @import("../../netpoll/netpoll.zig");
const pollside = @import("../../parallel/pollside.zig");
const threads_mod = @import("threads.zig");
const types = @import("../../parallel/types.zig");
const wait = @import("../../parallel/wait.zig");
const Tunables = @import("../../core/tunables.zig").Tunables;

/// The environment without scheduling points at the status of a goroutine, which only the holder of
/// the goroutine looks at.
pub fn Quiet(comptime Sim: type) type {
    return struct {
        pub const planted = Sim.planted;
        pub const local_queue_size = Sim.local_queue_size;
        pub const Lock = Sim.Lock;
        pub const Note = Sim.Note;
        pub const Thread = Sim.Thread;
        pub const Rest = Sim.Rest;
        pub const spin = Sim.spin;
        pub const nanotime = Sim.nanotime;
        pub const reads = Sim.reads;
        pub const writes = Sim.writes;
        pub const fatal = Sim.fatal;
        pub const writeStderr = Sim.writeStderr;

        pub fn Atomic(comptime T: type) type {
            return if (T == types.GStatus) Owned(T) else Sim.Atomic(T);
        }
    };
}

fn Owned(comptime T: type) type {
    return struct {
        raw: T,
        pub const simulated = true;

        pub fn init(value: T) @This() {
            return .{ .raw = value };
        }

        pub fn load(a: *const @This(), comptime _: std.builtin.AtomicOrder) T {
            return a.raw;
        }

        pub fn store(a: *@This(), value: T, comptime _: std.builtin.AtomicOrder) void {
            a.raw = value;
        }
    };
}

/// With so many Ps, and as many goroutines as `tasks`.
pub fn World(comptime Sim: type, comptime procs: u32, comptime tasks: u32) type {
    return struct {
        const Self = @This();
        pub const Env = Quiet(Sim);
        pub const Sched = proc.Proc(Env, Host);
        pub const G = Sched.G;
        pub const M = Sched.M;
        pub const P = Sched.P;
        pub const Batch = Sched.Batch;
        pub const Threads = threads_mod.Rt(Sim);
        pub const Desc = desc.Desc(pollside.Rt(struct {
            pub const Env = Sim;
            pub const Backend = void;
        }));

        sched: Sched = .{},
        p: [procs]P = undefined,
        task: [tasks]Task = @splat(.{}),
        ms: u32 = 0,
        exits: u32 = 0,
        /// Whether there is a descriptor to poll for.
        network: bool = false,
        d: Desc = .{},
        // The kernel's: an edge that no thread has fetched, a wake-up that pollBreak has left, and
        // the sleep of the thread that waits for either.
        edge: Sim.Atomic(bool) = .init(false),
        broken: Sim.Atomic(bool) = .init(false),
        poller: Sim.Note = .{},

        pub const Commit = *const fn (*Self, *M, *Task) bool;

        /// What a goroutine does when its body returns.
        pub const Next = union(enum) {
            exit,
            /// With status `waiting` or `runnable`, by what publishes it.
            wait: Commit,
            /// It came back from a system call and found no P.
            without_p,
        };

        pub const Task = struct {
            g: G = .{},
            /// From one wait to the next.
            body: *const fn (*Self, *M, *Task) Next = leaves,
            stage: u32 = 0,
            /// Stands for the stack: written by whoever runs it.
            frame: u32 = 0,
            ended: bool = false,
            /// It computes on until so many others have ended.
            until: u32 = 0,
            hold: Sim.Note = .{},
            // What lies on its stack while it waits.
            wait: wait.Wait(Env) = .{},
            net_wait: Threads.Wait = .{},
            net_waiter: Desc.Waiter = undefined,
            timer: Sched.T.Timers.Timer = .{},

            pub fn of(g: *G) *Task {
                return @fieldParentPtr("g", g);
            }
        };

        const Thread = struct { m: M = .{}, world: *Self };

        /// One round over the Ps will do, the last, which looks at everything.
        var one_round: Tunables = .{ .native_steal_rounds = .init(1) };

        pub const Host = struct {
            pub const Start = types.Call;
            pub const tunables = &one_round;

            pub fn sleepM(_: *Sched, m: *M) bool {
                return m.note.sleep(null) == .woken;
            }

            pub fn newM(s: *Sched, p: *P, spinning: bool) void {
                from(s).startThread(p, spinning);
            }

            pub fn warnThreadLimit(_: *Sched) void {}
            pub fn wakeSysmon(_: *Sched) void {}
            pub fn letRun(_: *P) void {}
            pub fn noteReady(_: *P, _: *G) void {}
            pub fn noteSteal(_: *P, _: *P, _: *G, _: u64) void {}

            pub fn pollWanted(s: *Sched) bool {
                return from(s).network;
            }

            pub fn poll(s: *Sched, delay_ns: ?u64, out: *Batch) void {
                const w = from(s);
                if (delay_ns == 0) {
                    // One that would wait, but for a timer that is due and another's to run, lets
                    // it.
                    if (s.lastpoll.raw == 0) Sim.spin();
                } else {
                    while (!w.broken.swap(false, .acq_rel) and !w.edge.load(.acquire)) {
                        if (w.poller.sleep(delay_ns) == .timeout) break;
                        w.poller.clear();
                    }
                }
                if (!w.edge.swap(false, .acq_rel)) return;
                // As netpoll.zig's `deliver`.
                var woken = w.d.edge(0, readable);
                while (woken.pop()) |each| {
                    const waiter = each.wait;
                    if (waiter.g) |raw| {
                        const g: *G = @ptrCast(@alignCast(raw));
                        g.transition(.waiting, .runnable);
                        out.push(g);
                    } else waiter.wake(waiter);
                }
            }

            pub fn pollBreak(s: *Sched) void {
                const w = from(s);
                if (!w.broken.swap(true, .acq_rel)) w.poller.wake();
            }
        };

        const readable: netpoll.Ready = .{
            .tag = 0,
            .read = true,
            .write = false,
            .hangup = false,
            .eof = false,
        };

        fn from(s: *Sched) *Self {
            return @fieldParentPtr("sched", s);
        }

        /// By any thread: the descriptor has become readable.
        pub fn raiseEdge(w: *Self) void {
            if (!w.edge.swap(true, .acq_rel)) w.poller.wake();
        }

        // ---- of models: before there are threads ----

        /// All Ps are idle, and there is no M.
        pub fn start(w: *Self) void {
            for (&w.p, 0..) |*p, i| {
                p.* = .{ .id = @intCast(i), .rng = 0x9E3779B97F4A7C15 *% (i + 1) };
                Sim.name(p, ([_][]const u8{ "p0", "p1", "p2", "p3" })[i]);
                w.sched.allp[i] = p;
            }
            w.sched.nallp.raw = procs;
            w.sched.gomaxprocs.raw = procs;
            _ = w.sched.setProcs(procs);
        }

        /// An M that holds a P, to run these first; without any it spins.
        pub fn startM(w: *Self, first: []const u32) void {
            const spinning = first.len == 0;
            if (spinning) w.sched.nmspinning.raw += 1;
            const p = w.sched.idle_p.?;
            w.sched.idle_p = p.idle_next;
            p.idle_next = null;
            w.sched.npidle.raw -= 1;
            w.sched.mcount += 1;
            for (first) |i| {
                w.task[i].g.transition(.idle, .runnable);
                w.sched.putLast(p, &w.task[i].g);
            }
            w.startThread(p, spinning);
        }

        fn startThread(w: *Self, p: *P, spinning: bool) void {
            const t = Sim.gpa().create(Thread) catch @panic("out of memory");
            t.* = .{ .world = w, .m = .{ .id = w.ms, .nextp = p, .spinning = spinning } };
            const names = [_][]const u8{ "m0", "m1", "m2", "m3", "m4", "m5", "m6", "m7" };
            if (w.ms == names.len) check.fail("more Ms than there is work for", .{});
            Sim.name(&t.m, names[w.ms]);
            w.ms += 1;
            _ = Sim.spawn(names[t.m.id], thread, t);
        }

        // ---- an M ----

        fn thread(t: *Thread) void {
            const w = t.world;
            const m = &t.m;
            const p = m.nextp.?;
            m.nextp = null;
            Sched.acquireP(m, p);
            w.loop(m);
            w.sched.lock.lock();
            w.sched.mcount -= 1;
            w.sched.lock.unlock();
        }

        fn loop(w: *Self, m: *M) void {
            while (true) {
                if (m.p == null) {
                    if (!w.sched.stopM(m)) return;
                    continue;
                }
                const g = w.sched.findRunnable(m) orelse return;
                if (m.spinning) w.sched.resetSpinning(m);
                w.run(m, g);
            }
        }

        fn run(w: *Self, m: *M, first: *G) void {
            var running: ?*G = first;
            while (running) |g| {
                g.transition(.runnable, .running);
                const t: *Task = .of(g);
                w.expectHeld(m);
                check.expect(!t.ended, "a goroutine runs that has ended");
                Sim.writes(&t.frame);
                g.m = m;
                const how = t.body(w, m, t);
                const early = Sim.planted == .commit_before_switch;
                if (early) w.leave(m, t, how);
                running = if (m.p) |p| w.sched.takeLocal(p) else null;
                Sim.writes(&t.frame); // its context is saved
                if (!early) w.leave(m, t, how);
            }
        }

        fn leave(w: *Self, m: *M, t: *Task, how: Next) void {
            switch (how) {
                .exit => {
                    t.g.transition(.running, .dead);
                    t.ended = true;
                    w.exits += 1;
                    for (&w.task) |*each| {
                        if (each.until == w.exits) each.hold.wake();
                    }
                },
                .wait => |commit| {
                    if (commit(w, m, t)) return;
                    t.g.transition(.waiting, .runnable);
                    w.sched.putNext(m.p.?, &t.g);
                },
                .without_p => w.injectOne(t),
            }
        }

        pub fn expectHeld(_: *Self, m: *M) void {
            const p = m.p.?;
            const held = p.m.peek() == m and p.status.peek() == .running;
            check.expect(held, "an M runs with a P that another has");
        }

        // ---- what goroutines and threads do ----

        pub fn leaves(_: *Self, _: *M, _: *Task) Next {
            return .exit;
        }

        pub fn computes(_: *Self, _: *M, t: *Task) Next {
            hog(t);
            return .exit;
        }

        /// Keeps its P until `until` others have ended: these need another.
        pub fn hog(t: *Task) void {
            if (t.until > 0) while (t.hold.sleep(null) != .woken) {};
        }

        /// Starts a goroutine, by one that runs on `m`.
        pub fn go(w: *Self, m: *M, i: u32) void {
            Sim.writes(&w.task[i].frame);
            w.task[i].g.transition(.idle, .runnable);
            w.sched.putNext(m.p.?, &w.task[i].g);
            w.sched.wakeP();
        }

        /// The same behind all others, which is no read-modify-write.
        pub fn goLast(w: *Self, m: *M, i: u32) void {
            Sim.writes(&w.task[i].frame);
            w.task[i].g.transition(.idle, .runnable);
            w.sched.putLast(m.p.?, &w.task[i].g);
            w.sched.wakeP();
        }

        /// Starts a goroutine, by a thread without a P.
        pub fn goForeign(w: *Self, i: u32) void {
            Sim.writes(&w.task[i].frame);
            w.task[i].g.transition(.idle, .runnable);
            w.injectOne(&w.task[i]);
        }

        /// Makes a goroutine runnable that waits; `m` is that of the caller, if that has a P.
        pub fn ready(w: *Self, m: ?*M, g: *G) void {
            g.transition(.waiting, .runnable);
            if (m) |own| {
                w.sched.putNext(own.p.?, g);
                return w.sched.wakeP();
            }
            w.injectOne(.of(g));
        }

        pub fn injectOne(w: *Self, t: *Task) void {
            var batch: Batch = .{};
            batch.push(&t.g);
            w.sched.inject(&batch);
        }

        // ---- the end ----

        pub fn rests(w: *Self) bool {
            return w.exits == tasks;
        }

        /// When no thread can go on: every goroutine has run to its end, all is idle and counted
        /// so.
        pub fn end(w: *Self) void {
            const s = &w.sched;
            check.expect(w.exits == tasks, "a goroutine is left");
            check.expect(s.queue.list.len == 0 and s.queue.len.raw == 0, "the queue is empty");
            check.expect(s.nmspinning.raw == 0, "nobody spins");
            var live: u32 = 0;
            for (&w.p) |*p| {
                check.expect(p.runq.isEmpty(), "the local queues are empty");
                const idle = p.status.raw == .idle;
                check.expect(idle or p.status.raw == .dead, "a P is held by nobody");
                live += @intFromBool(idle);
                check.expect(idle == (p.id < s.gomaxprocs.raw), "Ps beyond GOMAXPROCS are dead");
            }
            check.expect(s.npidle.raw == live, "npidle is the number of idle Ps");
            var listed: u32 = 0;
            var at = s.idle_p;
            while (at) |p| : (at = p.idle_next) {
                listed += 1;
                check.expect(listed <= procs, "a P is idle once");
            }
            check.expect(listed == live, "all idle Ps are listed");
            const polls: u32 = @intFromBool(s.lastpoll.raw == 0);
            check.expect(s.mcount == s.nmidle.raw + polls, "Ms are idle, or in the poller");
            check.expect(s.mcount == w.ms, "no M was lost");
        }
    };
}
