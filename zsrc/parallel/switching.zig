//! Moving between goroutines: go, exit, gosched, park and ready.
//!
//! Switching is direct: a goroutine that stops picks the next one of its P and continues it; only
//! without one, or when sysmon asks for attention, it goes to g0, which looks further. Either way
//! its context is saved by the switch itself, so what makes it visible to others, unlocking what it
//! queued itself on or putting it into a run queue, is left to the context that comes next on that
//! M: the `commit`, which `arrivedOn` performs. A commit that returns false takes the wait back.
//!
//! A goroutine inside the runtime counts `locks`, and is not preempted: the signal handler sees it
//! on the same thread and leaves `preempt` for `leave` to find.
//!
//! Generic over the lane: its environment, its scheduler and the memory of its goroutines. The
//! library has one (lane.zig); `zsrc/check` makes others, in which a thread is a fiber.
const std = @import("std");
const os = @import("../os/os.zig");
const arch = @import("../arch/arch.zig");
const tsan = @import("tsan.zig");
const types = @import("types.zig");
const wait_mod = @import("wait.zig");
const WaitReason = @import("../core/wait.zig").WaitReason;
const Wake = @import("../core/wait.zig").Wake;
const count = types.count;

/// Of `lane`: `Env`, `Sched`, `G`, `M`, `P`, `Batch`, `Timers`, `sched`, `arena`, `gpa`, `next_id`,
/// `foreign_spawns`, `events`, `holds`, `current` and `currentM`, as lane.zig has them. What a
/// goroutine runs is its host's to say (`Start`).
pub fn Switching(comptime lane: type) type {
    return struct {
        const Self = @This();
        const G = lane.G;
        const M = lane.M;
        const P = lane.P;
        const events = lane.events;
        const Start = @FieldType(G, "start");
        /// What is done for a goroutine once its context is saved; false takes its wait back.
        const Commit = *const fn (*M, *G, ?*anyopaque) bool;
        pub const Wait = wait_mod.Wait(lane.Env);
        const planted = if (@hasDecl(lane.Env, "planted")) lane.Env.planted else .none;

        /// Goroutines a P keeps, and how many it exchanges with the arena at a time: as Go's gfget
        /// and gfput.
        const free_most = 64;
        const free_batch = 32;
        /// So many goroutines wait on a P before one that starts more gives way to them.
        const burst = lane.Env.local_queue_size * 3 / 4;
        /// Numbers a P takes at a time: Go's goidCacheBatch.
        const id_batch = 16;

        /// The goroutine that calls, null outside of one.
        pub inline fn current() ?*G {
            return lane.current();
        }

        /// The calling goroutine enters the runtime.
        pub inline fn enter() ?*G {
            const g = current() orelse return null;
            lock(g);
            return g;
        }

        pub inline fn lock(g: *G) void {
            @as(*volatile u32, &g.locks).* = g.locks + 1;
            asm volatile ("" ::: .{ .memory = true });
        }

        /// Undoes `lock`; returns how many are left. For a caller that does not give way: the
        /// handler of a signal.
        pub inline fn letGo(g: *G) u32 {
            asm volatile ("" ::: .{ .memory = true });
            const left = g.locks - 1;
            @as(*volatile u32, &g.locks).* = left;
            return left;
        }

        pub inline fn leave(g: *G) void {
            const left = letGo(g);
            if (left == 0 and @as(*volatile bool, &g.preempt).*) giveWay(g);
        }

        /// A request to preempt came while the goroutine was inside the runtime.
        noinline fn giveWay(g: *G) void {
            lock(g);
            g.preempt = false;
            const p = g.m.?.p.?;
            // The P may have switched since.
            if (p.attention.load(.monotonic) and lane.holds() != .lock) {
                count(&p.counters.preempt_coop, 1);
                // Why a call has failed is told by errno, which is the thread's.
                const errno = os.net.getErrno();
                events.preempted(p, g, false);
                g.transition(.running, .preempted);
                g.reason = .preempted;
                switchAway(g, commitPreempted, null);
                g.reason = .none;
                os.net.setErrno(errno);
            }
            _ = letGo(g);
        }

        /// g0's loop, on an M with a P; returns when the thread has to end.
        pub fn loop(m: *M) void {
            while (true) {
                if (m.locked_g) |own| {
                    if (own.status.load(.monotonic) == .dead) return loseThread(m, own);
                    if (!lane.sched.stopLockedM(m)) return;
                    execute(m, own);
                    continue;
                }
                if (m.p == null) {
                    // It came back from a system call without one.
                    if (!lane.sched.stopM(m)) return;
                    continue;
                }
                const g = m.pending_g orelse lane.sched.findRunnable(m) orelse return;
                m.pending_g = null;
                if (g.locked_m) |own| {
                    if (own != m and planted != .runs_anywhere) {
                        // One that was stopped with its thread goes on in the place of this one.
                        if (own.locked_g == null) lane.bringHere(own);
                        if (!lane.sched.startLockedM(m, g)) return;
                        continue;
                    }
                }
                if (m.spinning) lane.sched.resetSpinning(m);
                execute(m, g);
            }
        }

        /// The goroutine that locked this thread has ended: so does the thread.
        fn loseThread(m: *M, g: *G) void {
            m.locked_g = null;
            g.locked_m = null;
            g.lock_count = 0;
            const p = m.p.?;
            freeG(p, g);
            lane.sched.handOffP(lane.Sched.releaseP(m));
        }

        fn execute(m: *M, g: *G) void {
            runOn(m, m.p.?, g);
            tsan.switchTo(g.fiber);
            arch.switchTo(&m.sp, g.sp);
            arrivedOn(m);
        }

        pub inline fn runOn(m: *M, p: *P, g: *G) void {
            g.transition(.runnable, .running);
            if (std.debug.runtime_safety) g.last_m = m.id;
            g.m = m;
            m.curg.store(g, .monotonic);
            count(&p.counters.switches, 1);
        }

        /// Leaves the calling goroutine; returns when it runs again, on the same thread if it keeps
        /// anything there.
        pub inline fn switchAway(g: *G, commit: Commit, arg: ?*anyopaque) void {
            if (lane.holds() != .nothing) return switchTied(g, commit, arg);
            switchNow(g, commit, arg);
        }

        noinline fn switchTied(g: *G, commit: Commit, arg: ?*anyopaque) void {
            lockThread(g);
            switchNow(g, commit, arg);
            _ = unlockThread(g);
        }

        inline fn switchNow(g: *G, commit: Commit, arg: ?*anyopaque) void {
            const m = g.m.?;
            m.left = g;
            m.commit = commit;
            m.commit_arg = arg;
            if (nextFor(m)) |next| {
                runOn(m, m.p.?, next);
                tsan.switchTo(next.fiber);
                arch.switchTo(&g.sp, next.sp);
            } else {
                m.curg.store(null, .monotonic);
                tsan.switchTo(m.fiber);
                arch.switchTo(&g.sp, m.sp);
            }
            arrivedOn(g.m.?);
        }

        inline fn nextFor(m: *M) ?*G {
            if (m.locked_g != null and planted != .next_while_locked) return null;
            const next = lane.sched.takeLocal(m.p orelse return null) orelse return null;
            if (next.locked_m != null) {
                m.pending_g = next;
                return null;
            }
            return next;
        }

        /// The first thing that every context does after a switch to it.
        inline fn arrivedOn(m: *M) void {
            const g = m.left orelse return;
            m.left = null;
            if (m.commit(m, g, m.commit_arg)) return;
            g.transition(.waiting, .runnable);
            events.record(m.p.?, .goroutine_ready, g.id, 0, 0);
            lane.sched.putNext(m.p.?, g);
        }

        fn entry() callconv(.c) noreturn {
            const g = current().?;
            arrivedOn(g.m.?);
            events.started(g);
            leave(g);
            g.start.run();
            // In the child of its fork it is no goroutine, but the last thread.
            if (current() == null) os.exitProcess(0);
            exit(g);
        }

        // ---- beginning and end ----

        /// Starts a goroutine.
        pub fn go(start: Start) error{OutOfMemory}!void {
            const self = enter() orelse {
                _ = try goForeign(start);
                return;
            };
            defer leave(self);
            if (events.wantsAny(&.{ .goroutine_create, .goroutine_start }))
                return goNoted(self, start);
            return goFrom(self, start, false);
        }

        // What records is a function of its own, here and below, so that the usual way has no call
        // in it that registers would have to be saved for.
        noinline fn goNoted(self: *G, start: Start) error{OutOfMemory}!void {
            return goFrom(self, start, true);
        }

        inline fn goFrom(self: *G, start: Start, comptime noted: bool) error{OutOfMemory}!void {
            const p = self.m.?.p.?;
            const g = try newG(p, start);
            if (noted) events.created(p, g, self.id);
            lane.sched.putNext(p, g);
            lane.sched.wakeP();
            // A burst would need a stack for each before the first has run: let some of them run
            // instead.
            if (p.runq.len() >= burst and self.locked_m == null) {
                self.transition(.running, .preempted);
                switchAway(self, commitPreempted, null);
            }
        }

        inline fn newG(p: *P, start: Start) error{OutOfMemory}!*G {
            const g = p.free.pop() orelse blk: {
                p.free = try lane.arena.get(free_batch);
                break :blk p.free.pop().?;
            };
            if (p.next_id == p.end_id) {
                p.next_id = lane.next_id.fetchAdd(id_batch, .monotonic);
                p.end_id = p.next_id + id_batch;
            }
            g.id = p.next_id;
            p.next_id += 1;
            count(&p.counters.spawns, 1);
            prepare(g, start);
            return g;
        }

        /// For a timer that is due, on g0 of an M with a P. False without memory.
        pub fn goFromTimer(start: Start) bool {
            const p = (lane.currentM() orelse return false).p orelse return false;
            const g = newG(p, start) catch return false;
            events.created(p, g, 0);
            lane.sched.putNext(p, g);
            return true;
        }

        /// As `go`, from anywhere; returns the goroutine's number.
        pub noinline fn goForeign(start: Start) error{OutOfMemory}!u64 {
            const batch = try lane.arena.get(1);
            const g = batch.head.?;
            const id = lane.next_id.fetchAdd(1, .monotonic);
            g.id = id;
            _ = lane.foreign_spawns.fetchAdd(1, .release);
            prepare(g, start);
            events.created(null, g, 0);
            readyForeign(g);
            return id;
        }

        pub inline fn prepare(g: *G, start: Start) void {
            if (g.status.raw == .dead) g.transition(.dead, .idle);
            g.locks = 1; // until it has arrived
            g.preempt = false;
            g.token.value = 0;
            g.m = null;
            g.start = start;
            tsan.create(&g.fiber);
            const sp =
                arch.prepare(lane.arena.lowEnd(g), @intFromPtr(g), entry, arch.environment());
            // A thread that has seen it in a queue may still read this (runq.zig, warm).
            @atomicStore(usize, &g.sp, sp, .monotonic);
            g.transition(.idle, .runnable);
        }

        fn exit(g: *G) noreturn {
            lock(g);
            g.transition(.running, .dead);
            const p = g.m.?.p.?;
            events.ended(p, g);
            count(&p.counters.exits, 1);
            switchAway(g, commitExit, null);
            unreachable;
        }

        fn commitExit(m: *M, g: *G, _: ?*anyopaque) bool {
            // One that ends locked to its thread is freed with that.
            if (m.locked_g == g) return true;
            freeG(m.p.?, g);
            return true;
        }

        fn freeG(p: *P, g: *G) void {
            // The last one is warm.
            p.free.pushFront(g);
            if (p.free.len <= free_most) return;
            var batch: lane.Batch = .{};
            while (batch.len < free_batch) batch.push(p.free.pop().?);
            lane.arena.put(&batch);
        }

        /// Goroutines that live. Ends are read before beginnings, so that none left is true.
        pub fn goroutineCount() u64 {
            var ended: u64 = 0;
            for (lane.sched.procs()) |p|
                ended += @atomicLoad(u64, &p.?.counters.exits, .acquire);
            var begun: u64 = 0;
            for (lane.sched.procs()) |p|
                begun += @atomicLoad(u64, &p.?.counters.spawns, .acquire);
            return (begun + lane.foreign_spawns.load(.acquire)) -| ended;
        }

        // ---- waiting ----

        pub fn gosched(g: *G) void {
            g.transition(.running, .runnable);
            switchAway(g, commitYield, null);
        }

        fn commitYield(m: *M, g: *G, _: ?*anyopaque) bool {
            lane.sched.putLast(m.p.?, g);
            return true;
        }

        /// One that was preempted goes behind all others, in the queue of all Ps.
        pub fn commitPreempted(_: *M, g: *G, _: ?*anyopaque) bool {
            g.transition(.preempted, .runnable);
            lane.sched.putGlobal(g);
            lane.sched.wakeP();
            return true;
        }

        pub inline fn park(g: *G, reason: WaitReason, commit: Commit, arg: ?*anyopaque) void {
            if (events.wants(.goroutine_park)) return parkNoted(g, reason, commit, arg);
            parkNow(g, reason, commit, arg);
        }

        noinline fn parkNoted(g: *G, reason: WaitReason, commit: Commit, arg: ?*anyopaque) void {
            events.record(g.m.?.p.?, .goroutine_park, g.id, 0, @backingInt(reason));
            parkNow(g, reason, commit, arg);
        }

        inline fn parkNow(g: *G, reason: WaitReason, commit: Commit, arg: ?*anyopaque) void {
            g.transition(.running, .waiting);
            g.reason = reason;
            switchAway(g, commit, arg);
            g.reason = .none;
        }

        /// Makes a waiting goroutine runnable, after the caller has ended its wait. From anywhere.
        pub inline fn ready(g: *G) void {
            if (events.wants(.goroutine_ready)) return readyNoted(g);
            readyNow(g);
        }

        noinline fn readyNoted(g: *G) void {
            const self = current();
            const m = if (self) |s| s.m else lane.currentM();
            if (m != null and m.?.p != null) {
                events.record(m.?.p.?, .goroutine_ready, g.id, if (self) |s| s.id else 0, 0);
            } else events.recordShared(.goroutine_ready, g.id, 0, 0);
            readyNow(g);
        }

        inline fn readyNow(g: *G) void {
            g.transition(.waiting, .runnable);
            if (current()) |self| {
                if (self.m.?.p) |p| {
                    lane.sched.putNext(p, g);
                    return lane.sched.wakeP();
                }
            }
            readyElsewhere(g);
        }

        noinline fn readyElsewhere(g: *G) void {
            if (lane.currentM()) |m| {
                if (m.p) |p| {
                    lane.sched.putLast(p, g);
                    return lane.sched.wakeP();
                }
            }
            readyForeign(g);
        }

        /// `g` is runnable; the caller has no P.
        pub fn readyForeign(g: *G) void {
            var batch: lane.Batch = .{};
            batch.push(g);
            lane.sched.inject(&batch);
        }

        // ---- what the primitives wait with ----

        /// What primitives are generic over.
        pub const Rt = struct {
            pub const Env = lane.Env;
            pub const Me = ?*G;
            pub const Blocker = Self.Blocker;
            const claims = wait_mod.Claims(lane.Env);
            pub const Who = claims.Who;
            pub const Run = claims.Run;
            pub const run = claims.run;
            pub const claim = claims.claim;
            pub const isClaimed = claims.isClaimed;
            pub const last_is_next = claims.last_is_next;

            pub inline fn pace() u64 {
                return lane.Env.nanotime();
            }

            pub inline fn wake(w: *Wait) void {
                if (w.g) |g| ready(@ptrCast(@alignCast(g))) else w.wake(w);
            }

            pub const wakeLast = wake;
        };

        /// Runs once the context of the goroutine that waits is saved; false takes the wait back.
        const Unlock = *const fn (*anyopaque) bool;

        /// A wait of the calling goroutine or thread, on its stack.
        pub const Blocker = struct {
            wait: Wait,
            /// Of a thread that is no goroutine.
            note: lane.Env.Note = .{},

            /// `contested`: something else than what is waited for may end the wait.
            pub inline fn init(b: *Blocker, g: ?*G, contested: bool) void {
                b.* = .{ .wait = .{ .g = g, .wake = wakeThread, .contested = contested } };
            }

            pub inline fn who(b: *Blocker) *Wait {
                return &b.wait;
            }

            /// The waiter that was claimed.
            pub inline fn fired(b: *const Blocker) *anyopaque {
                return b.wait.fired.?;
            }

            fn wakeThread(w: *Wait) void {
                const b: *Blocker = @alignCast(@fieldParentPtr("wait", w));
                b.note.wake();
            }

            /// Waits until it is claimed and woken, or until `deadline`, for which the wait must be
            /// contested.
            pub inline fn block(
                b: *Blocker,
                reason: WaitReason,
                deadline: ?u64,
                unlock: Unlock,
                context: *anyopaque,
            ) Wake {
                const raw = b.wait.g orelse return b.blockThread(deadline, unlock, context);
                const g: *G = @ptrCast(@alignCast(raw));
                if (deadline) |when| return b.blockUntil(g, reason, when, unlock, context);
                var c: Unlocking = .{ .unlock = unlock, .context = context };
                park(g, reason, commitUnlock, &c);
                return b.wait.outcome;
            }

            const Unlocking = struct { unlock: Unlock, context: *anyopaque };

            fn commitUnlock(_: *M, _: *G, arg: ?*anyopaque) bool {
                const c: *Unlocking = @ptrCast(@alignCast(arg.?));
                return c.unlock(c.context);
            }

            const Timed = struct {
                commit: Unlocking,
                timer: lane.Timers.Timer,
                b: *Blocker,
                g: *G,

                fn fire(t: *lane.Timers.Timer) ?*G {
                    const self: *Timed = @alignCast(@fieldParentPtr("timer", t));
                    return if (self.b.wait.claim(.timeout)) self.g else null;
                }
            };

            noinline fn blockUntil(
                b: *Blocker,
                g: *G,
                reason: WaitReason,
                deadline: u64,
                unlock: Unlock,
                context: *anyopaque,
            ) Wake {
                var timed: Timed = .{
                    .commit = .{ .unlock = unlock, .context = context },
                    .timer = .{ .when = deadline, .fire = Timed.fire },
                    .b = b,
                    .g = g,
                };
                park(g, reason, commitTimed, &timed);
                _ = lane.Timers.remove(&timed.timer);
                return b.wait.outcome;
            }

            fn commitTimed(m: *M, _: *G, arg: ?*anyopaque) bool {
                const timed: *Timed = @ptrCast(@alignCast(arg.?));
                // From the moment the timer is in its heap the goroutine may run and leave this
                // frame.
                const c = timed.commit;
                if (addTimer(m, &timed.timer)) return c.unlock(c.context);
                // Without memory the wait cannot be bounded: it ends now, unless another waker was
                // quicker.
                const mine = timed.b.wait.claim(.timeout);
                _ = c.unlock(c.context);
                return !mine;
            }

            noinline fn blockThread(
                b: *Blocker,
                deadline: ?u64,
                unlock: Unlock,
                context: *anyopaque,
            ) Wake {
                if (!unlock(context)) return .ready;
                while (true) {
                    const left: ?u64 = if (deadline) |when| when -| lane.Env.nanotime() else null;
                    if (b.note.sleep(left) == .woken) return b.wait.outcome;
                    if (deadline == null or lane.Env.nanotime() < deadline.?) continue;
                    if (b.wait.claim(.timeout)) return .timeout;
                    // Another was first: the wake-up is on its way.
                    while (b.note.sleep(null) != .woken) {}
                    return b.wait.outcome;
                }
            }
        };

        /// By the M that runs, on a goroutine's stack or g0. False without memory.
        pub fn addTimer(m: *M, t: *lane.Timers.Timer) bool {
            const when = t.when;
            const earliest = m.p.?.timers.add(lane.gpa, t) catch return false;
            if (earliest) noteEarliest(when);
            return true;
        }

        inline fn noteEarliest(when: u64) void {
            if (lane.sched.gomaxprocs.load(.monotonic) > 1) lane.sched.timerAdded(when);
        }

        /// By a thread without a P. False without memory.
        pub fn addTimerForeign(t: *lane.Timers.Timer) bool {
            const when = t.when;
            const earliest = lane.sched.allp[0].?.timers.add(lane.gpa, t) catch return false;
            if (earliest) lane.sched.timerAdded(when);
            return true;
        }

        /// Parks for at least that long.
        pub fn sleep(g: *G, ns: u64) void {
            var when = lane.Env.nanotime() +| ns;
            park(g, .sleep, commitSleep, &when);
        }

        fn commitSleep(m: *M, g: *G, arg: ?*anyopaque) bool {
            const when = @as(*const u64, @ptrCast(@alignCast(arg.?))).*;
            const earliest = m.p.?.timers.addSleeper(lane.gpa, g, when) catch return false;
            if (earliest) noteEarliest(when);
            return true;
        }

        // ---- threads and system calls ----

        pub fn lockThread(g: *G) void {
            g.lock_count += 1;
            g.locked_m = g.m;
            g.m.?.locked_g = g;
        }

        /// False if it is not locked.
        pub fn unlockThread(g: *G) bool {
            if (g.lock_count == 0) return false;
            g.lock_count -= 1;
            if (g.lock_count > 0) return true;
            g.locked_m = null;
            g.m.?.locked_g = null;
            return true;
        }

        pub fn enterSyscall(g: *G) void {
            g.transition(.running, .syscall);
            lane.sched.enterSyscall(g.m.?);
        }

        pub fn exitSyscall(g: *G) void {
            if (lane.sched.exitSyscall(g.m.?)) return g.transition(.syscall, .running);
            g.transition(.syscall, .runnable);
            switchAway(g, commitGlobal, null);
        }

        fn commitGlobal(_: *M, g: *G, _: ?*anyopaque) bool {
            readyForeign(g);
            return true;
        }
    };
}
