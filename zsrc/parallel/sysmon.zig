//! sysmon: the thread without a P that watches all of them.
//!
//! As Go's sysmon and retake (runtime/proc.go): it looks at the network if no M has for 10 ms,
//! takes Ps from system calls, and asks goroutines that have had their time slice to give way. It
//! sleeps 20 us between rounds and doubles that after 50 rounds in which nothing happened, up to 10
//! ms, but never past the end of a slice; when all Ps are idle by then it sleeps until one is
//! taken. It begins anew with 20 us if there have been system calls since it last did, which is
//! what so short a sleep is for.
//!
//! Of `lane`: `Env`, `Os`, `Host`, `P`, `Batch`, `options`, `tunables`, `sched`, `arena`,
//! `interrupt`, `events` and `lookForDeadlock`, as lane.zig has them.
const std = @import("std");

/// A slice may end this part of it early.
const slice_slack = 16;

pub fn Sysmon(comptime lane: type) type {
    return struct {
        const Env = lane.Env;
        const Os = lane.Os;
        const events = lane.events;
        const planted = if (@hasDecl(Env, "planted")) Env.planted else .none;

        var thread: ?Os.Thread = null;
        var note: Env.Note = .{};
        var stopping: Env.Atomic(bool) = .init(false);

        /// As if there had been no thread.
        pub fn forget() void {
            thread = null;
            stopping = .init(false);
            note = .{};
        }

        pub fn start() error{ThreadLimit}!void {
            forget();
            thread = Os.spawn(main, null, .{ .signals = .blocked }) catch
                return error.ThreadLimit;
        }

        /// Ends the thread, if it runs.
        pub fn stop() void {
            const running = thread orelse return;
            thread = null;
            stopping.store(true, .release);
            note.wake();
            running.join();
        }

        pub fn wake() void {
            note.wake();
        }

        fn main(_: ?*anyopaque) void {
            Os.preciseSleep();
            Os.promptWake();
            const t = lane.tunables;
            var delay = t.sysmon_sleep_min_ns.get();
            var idle: u32 = 0;
            var syscalls: u32 = 0;
            while (!stopping.load(.acquire)) {
                const began = if (events.wants(.sysmon_tick)) Env.nanotime() else 0;
                // Not for every short rest: to wake sysmon costs the busy threads a system call.
                const longest = t.sysmon_sleep_max_ns.get();
                if (delay >= longest and allIdle()) {
                    const again: ?u64 = lane.lookForDeadlock();
                    _ = note.sleep(if (lane.arena.hasSurplus()) longest else again);
                    const made = syscallsMade();
                    if (made != syscalls) {
                        syscalls = made;
                        delay = t.sysmon_sleep_min_ns.get();
                        idle = 0;
                    }
                } else {
                    delay = backOff(delay, idle);
                    const now = Env.nanotime();
                    _ = note.sleep(@max(
                        t.sysmon_sleep_min_ns.get(),
                        @min(delay, nextSliceEnd(now) -| now),
                    ));
                }
                note.clear();
                const now = Env.nanotime();
                if (began != 0) events.recordShared(.sysmon_tick, 0, now - began, idle);
                idle = if (round(now)) 0 else idle +| 1;
            }
        }

        /// Changes with each.
        fn syscallsMade() u32 {
            var sum: u32 = 0;
            for (lane.sched.procs()) |p| sum +%= p.?.syscalltick.load(.monotonic);
            return sum;
        }

        /// How long to sleep after `idle` rounds without an event, when it was `delay` before.
        pub fn backOff(delay: u64, idle: u32) u64 {
            const t = lane.tunables;
            if (idle == 0) return t.sysmon_sleep_min_ns.get();
            const next = if (idle > t.sysmon_idle_rounds.get()) delay * 2 else delay;
            return @min(next, t.sysmon_sleep_max_ns.get());
        }

        /// Whether all Ps are idle: then the M that takes one wakes us.
        fn allIdle() bool {
            const s = &lane.sched;
            if (s.npidle.load(.monotonic) != s.gomaxprocs.load(.monotonic)) return false;
            s.lock.lock();
            defer s.lock.unlock();
            const live = s.gomaxprocs.load(.monotonic);
            const idle = s.npidle.load(.monotonic) == live or planted == .idle_unlocked;
            const refused = s.refused.load(.monotonic) and planted != .refused_for_good;
            s.sysmon_waits = idle and !refused and !stopping.load(.acquire) and
                for (s.procs()[live..]) |p| {
                    // One beyond GOMAXPROCS that still runs has to be asked to stop.
                    if (p.?.status.load(.monotonic) != .dead) break false;
                } else true;
            return s.sysmon_waits;
        }

        fn nextSliceEnd(now: u64) u64 {
            const slice_ns = lane.tunables.preempt_slice_ns.get();
            var end: u64 = std.math.maxInt(u64);
            for (lane.sched.procs()) |each| {
                const p = each.?;
                if (p.status.load(.monotonic) != .running) continue;
                const began = @max(p.seen_sched_at, p.slice_at.load(.monotonic));
                end = @min(end, @max(began, p.requested_at) + slice_ns);
            }
            return @max(end, now);
        }

        /// One look at everything. True if a P was retaken, so that the next look comes soon.
        pub fn round(now: u64) bool {
            const s = &lane.sched;
            const last = s.lastpoll.load(.monotonic);
            const interval = lane.tunables.netpoll_interval_ns.get();
            if (lane.Host.pollWanted(s) and last != 0 and now -| last > interval) {
                if (s.lastpoll.cmpxchgStrong(last, now, .seq_cst, .monotonic) == null) {
                    var batch: lane.Batch = .{};
                    lane.Host.poll(s, 0, &batch);
                    s.inject(&batch);
                }
            }
            _ = lane.arena.scavenge(now);
            var retaken = false;
            var due = false;
            for (s.procs()) |each| {
                const p = each.?;
                due = due or p.timers.earliest.load(.monotonic) <= now;
                switch (p.status.load(.acquire)) {
                    .running => watchRunning(p, now),
                    .syscall => retaken = watchSyscall(p, now) or retaken,
                    .idle, .dead => {},
                }
            }
            if (s.refused.load(.monotonic) and planted != .refused_for_good) s.retryM();
            // A P that computes does not see that its timers are due; another could run them.
            if (due and s.npidle.load(.monotonic) > 0) s.wakePSlow();
            return retaken;
        }

        /// Asks for the P of a goroutine that has had its slice.
        pub fn watchRunning(p: *lane.P, now: u64) void {
            const tick = p.schedtick.load(.monotonic);
            if (p.seen_schedtick != tick) {
                p.seen_schedtick = tick;
                // After a preemption it is known when the slice began; otherwise some time before
                // now.
                const obeyed = p.slice_at.load(.monotonic);
                p.seen_sched_at = if (p.requested_at != 0 and obeyed > p.requested_at)
                    obeyed
                else
                    now;
                p.requested_at = 0;
            }
            // Ps with slices that end at about the same time are asked in one go: from then on they
            // stay together, and sysmon wakes once a slice for all of them.
            const slice_ns = lane.tunables.preempt_slice_ns.get();
            const slice = slice_ns - slice_ns / slice_slack;
            // One beyond GOMAXPROCS has to give its work up at once.
            if (p.id < lane.sched.gomaxprocs.load(.monotonic) and now -| p.seen_sched_at < slice)
                return;
            if (now -| p.requested_at < slice) return;
            p.requested_at = now;
            p.preempt_tick.store(tick, .monotonic);
            p.preempt_since.store(p.seen_sched_at, .monotonic);
            p.attention.store(true, .release);
            const m = p.m.load(.acquire) orelse return;
            lane.interrupt.send(m);
        }

        fn watchSyscall(p: *lane.P, now: u64) bool {
            const s = &lane.sched;
            const t = lane.tunables;
            const ran = p.schedtick.load(.monotonic);
            if (p.seen_schedtick != ran) {
                p.seen_schedtick = ran;
                p.seen_sched_at = now;
                p.requested_at = 0;
            }
            // As Go's retake: an M that makes one short call after the other has had its slice too
            // at some time.
            const had_slice = now -| p.seen_sched_at >= t.preempt_slice_ns.get();
            const tick = p.syscalltick.load(.monotonic);
            if (p.seen_syscalltick != tick) {
                p.seen_syscalltick = tick;
                p.seen_syscall_at = now;
                if (!had_slice) return false;
            }
            if (!lane.options.retake_enabled) return false;
            const away = now -| p.seen_syscall_at;
            // Nothing waits for it, and others look for work: it may keep its P for a while.
            const wanted = !p.runq.isEmpty() or
                s.nmspinning.load(.monotonic) + s.npidle.load(.monotonic) == 0 or
                s.queue.len.load(.monotonic) > 0;
            const threshold = if (wanted)
                t.retake_threshold_ns.get()
            else
                t.retake_threshold_idle_ns.get();
            if (away < threshold and !(had_slice and wanted)) return false;
            const blocked = if (events.wants(.retake)) idOn(p) else 0;
            if (!s.retake(p)) return false;
            events.recordShared(.retake, blocked, away, 0);
            return true;
        }

        /// The goroutine of a P that is in a system call.
        fn idOn(p: *lane.P) u64 {
            const m = p.m.load(.acquire) orelse return 0;
            const g = m.curg.load(.monotonic) orelse return 0;
            return @atomicLoad(u64, &g.id, .monotonic);
        }
    };
}
