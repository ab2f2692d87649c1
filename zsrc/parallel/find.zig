//! How an M of the native lane finds work: Go's findRunnable, and the stealing in it.
//!
//! The order is Go's: what the P has, timers first; the global queue, at every 61st turn before the
//! rest; the network without waiting; other Ps' queues and timers, by Ms that spin. Before it
//! sleeps the M drops its P and looks at everything once more, since a thread that made work
//! meanwhile saw it spinning (proc.zig says why that is enough); then one M waits in the poller,
//! until the next timer at most, and the others wait to be woken.
const std = @import("std");
const count = @import("types.zig").count;

/// Go's runtime/proc.go, findRunnable: how often the global queue comes first, for fairness.
const global_turns = 61;
/// With so many timers pending an M sleeps so long at least.
const crowd = 64;
const crowd_slack_ns = std.time.ns_per_ms;

/// The part of a scheduler, `Self`, that looks for work.
pub fn Finding(comptime Self: type, comptime Env: type, comptime Host: type) type {
    return struct {
        const G = Self.G;
        const M = Self.M;
        const P = Self.P;
        const Batch = Self.Batch;
        const never = Self.T.Timers.never;
        const planted = if (@hasDecl(Env, "planted")) Env.planted else .none;

        /// What came of it; `again` if there may be something by now.
        const Look = union(enum) { found: *G, again, nothing };

        /// A goroutine that was found without looking far, and no request to look: for a switch
        /// from one goroutine to another without a detour over g0.
        pub inline fn takeLocal(_: *Self, p: *P) ?*G {
            if (p.attention.load(.monotonic)) return null;
            if (p.runq.popNext()) |g| return g; // inherits the time slice
            const tick = p.schedtick.raw +% 1;
            if (tick % global_turns == 0 or p.global_owed) return null;
            const g = p.runq.pop() orelse return null;
            p.schedtick.store(tick, .monotonic);
            p.runq.warm();
            return g;
        }

        /// Work for an M that holds a P, however long it takes. Null if the thread has to end.
        pub fn findRunnable(s: *Self, m: *M) ?*G {
            while (true) {
                const p = m.p.?;
                if (p.attention.load(.monotonic)) attend(s, p);
                if (isSurplus(s, p)) {
                    if (!surrender(s, m, p)) return null;
                    continue;
                }
                var now: u64 = 0;
                var until = runTimers(s, p, p, &now);
                for (leftTo(s, p)) |dead| until = @min(until, runTimers(s, p, dead.?, &now));

                if (fromQueues(s, p) orelse fromPoller(s, p)) |g| return g;
                const limit = s.gomaxprocs.load(.monotonic);
                // One that spins looks also with a limit of 1: the recheck may have seen work on a
                // P that is beyond a new GOMAXPROCS and runs on.
                const alone = limit == 1 and (!m.spinning or planted == .shrunk_unseen);
                if (!alone and (m.spinning or mayBegin(s, limit))) {
                    if (!m.spinning) s.becomeSpinning(m);
                    switch (steal(s, p, &now, &until)) {
                        .found => |g| return g,
                        .again => continue,
                        .nothing => {},
                    }
                }
                const was_spinning = m.spinning;
                switch (dropP(s, m, p, &until)) {
                    .found => |g| return g,
                    .again => continue,
                    .nothing => {},
                }
                if ((Host.pollWanted(s) or until != never) and s.lastpoll.swap(0, .seq_cst) != 0) {
                    switch (waitInPoller(s, m, now, until, was_spinning)) {
                        .found => |g| return g,
                        .again => continue,
                        .nothing => {},
                    }
                } else if (until != never) {
                    const other = s.poll_until.load(.seq_cst);
                    const breaks = planted != .stops_unnoticed;
                    if (breaks and (other == 0 or other > until)) Host.pollBreak(s);
                }
                if (!s.stopM(m)) return null;
            }
        }

        /// Whether no M may run on the P any more.
        inline fn isSurplus(s: *Self, p: *P) bool {
            return p.id >= s.gomaxprocs.load(.monotonic) or s.stopping.load(.monotonic);
        }

        /// The M gives up such a P, and has another one afterwards. False if the thread has to end.
        fn surrender(s: *Self, m: *M, p: *P) bool {
            const was_spinning = m.spinning;
            if (was_spinning) {
                m.spinning = false;
                s.endSpinning();
            }
            s.lock.lock();
            s.drain(p);
            s.putIdleP(Self.releaseP(m));
            s.lock.unlock();
            if (s.stopping.load(.monotonic)) return false; // no M is left to wake
            // What it handed over may wait for an M, as may what was made while this one counted as
            // spinning, and so may timers, its own and those that it had to look after.
            if (was_spinning or s.queue.len.load(.seq_cst) > 0) s.wakePSlow();
            const due = if (planted == .only_its_own_timers)
                p.timers.earliest.load(.acquire)
            else
                earliestTimer(s);
            if (due != never and planted != .dead_timers_untold) s.timerAdded(due);
            return s.stopM(m);
        }

        /// From the P's own queue or the global one.
        inline fn fromQueues(s: *Self, p: *P) ?*G {
            const tick = p.schedtick.raw +% 1;
            p.schedtick.store(tick, .monotonic);
            if (tick % global_turns == 0) p.global_owed = true;
            // One that a timer has just woken goes before those in the queues, which have had
            // slices.
            if (p.runq.popNext()) |g| return g;
            if (p.global_owed) {
                p.global_owed = false;
                if (fromGlobal(s, p, 1)) |g| return g;
            }
            return p.runq.pop() orelse fromGlobal(s, p, 0);
        }

        /// See takeGlobal.
        inline fn fromGlobal(s: *Self, p: *P, most: u32) ?*G {
            if (s.queue.len.load(.monotonic) == 0) return null;
            s.lock.lock();
            defer s.lock.unlock();
            return s.takeGlobal(p, most);
        }

        /// One that the network has woken, if no other M waits there. The others are queued.
        inline fn fromPoller(s: *Self, p: *P) ?*G {
            if (!Host.pollWanted(s) or s.lastpoll.load(.monotonic) == 0) return null;
            var batch: Batch = .{};
            Host.poll(s, 0, &batch);
            const g = batch.pop() orelse return null;
            count(&p.counters.netpoll_wakeups, batch.len + 1);
            while (batch.pop()) |more| s.putLast(p, more);
            if (p.runq.len() > 0) s.wakeP();
            return g;
        }

        /// Of an M that has found nothing: it gives up its P, stops spinning, and looks once more.
        fn dropP(s: *Self, m: *M, p: *P, until: *u64) Look {
            s.lock.lock();
            if (isSurplus(s, p)) {
                s.lock.unlock();
                return .again;
            }
            if (s.takeGlobal(p, 0)) |g| {
                s.lock.unlock();
                return .{ .found = g };
            }
            if (!m.spinning and s.needspinning.load(.seq_cst) == 1) {
                s.becomeSpinning(m);
                s.lock.unlock();
                return .again;
            }
            s.putIdleP(Self.releaseP(m));
            s.lock.unlock();
            // Those of Ps that died since it looked are this one's to wait for.
            if (planted != .died_meanwhile) until.* = @min(until.*, earliestLeftTo(s, p));
            if (!m.spinning) return .nothing;
            m.spinning = false;
            s.endSpinning();
            // Recheck: work that was made while nmspinning still counted this M. The decrement is
            // the barrier that pairs with the one in wakeP.
            if (planted == .no_recheck) return .nothing;
            if (takePForWork(s, m)) {
                s.becomeSpinning(m);
                return .again;
            }
            until.* = @min(until.*, earliestTimer(s));
            return .nothing;
        }

        /// Of the M without a P that has got `lastpoll`: waits for the network, until `until` at
        /// most, and has a P afterwards unless there was none.
        fn waitInPoller(s: *Self, m: *M, now: u64, due: u64, was_spinning: bool) Look {
            s.poll_until.store(if (due == never) 0 else due, .seq_cst);
            // A thread that added a timer before the store above saw no poller to wake, and neither
            // did one that had no thread for a P before the swap.
            const until = @min(due, earliestTimer(s));
            var batch: Batch = .{};
            const refused = s.refused.load(.seq_cst) and planted != .polls_unasked;
            const delay: ?u64 = if (refused)
                0
            else if (until == never)
                null
            else
                coalesce(s, until -| (if (now == 0) Env.nanotime() else now));
            Host.poll(s, delay, &batch);
            s.poll_until.store(0, .seq_cst);
            if (planted != .poller_stays) s.lastpoll.store(@max(1, Env.nanotime()), .seq_cst);
            s.lock.lock();
            const got = s.takeIdleP();
            if (got != null) s.refused.store(false, .monotonic);
            s.lock.unlock();
            const p = got orelse {
                if (planted != .polled_dropped) s.inject(&batch);
                return .nothing;
            };
            Self.acquireP(m, p);
            const g = batch.pop() orelse {
                if (was_spinning) s.becomeSpinning(m);
                return .again;
            };
            count(&p.counters.netpoll_wakeups, batch.len + 1);
            if (batch.len > 0) {
                while (batch.pop()) |more| s.putLast(p, more);
                s.wakeP();
            }
            return .{ .found = g };
        }

        /// sysmon's request: the time slice is over. The one to run next has had its share of it.
        pub fn attend(s: *Self, p: *P) void {
            p.attention.store(false, .monotonic);
            p.slice_at.store(Env.nanotime(), .monotonic);
            if (p.runq.popNext()) |g| s.putLast(p, g);
        }

        /// Runs the due timers of `of`, on P `p`. Returns when the next is due.
        fn runTimers(s: *Self, p: *P, of: *P, now: *u64) u64 {
            const due = of.timers.earliest.load(.acquire);
            if (due == never) return never;
            if (now.* == 0) now.* = Env.nanotime();
            if (due > now.*) return due;
            const fired = of.timers.run(now.*, Waker{ .s = s, .p = p });
            count(&p.counters.timer_fires, fired);
            if (of != p) count(&p.counters.timer_steals, fired);
            if (fired > 1) s.wakeP();
            return of.timers.earliest.load(.monotonic);
        }

        const Waker = struct {
            s: *Self,
            p: *P,

            pub fn ready(w: Waker, g: *G) void {
                g.transition(.waiting, .runnable);
                Host.noteReady(w.p, g);
                // The first runs next: its time was up first.
                if (w.p.runq.next.load(.monotonic) == null)
                    w.s.putNext(w.p, g)
                else
                    w.s.putLast(w.p, g);
            }
        };

        /// Waking up for each of many timers costs more than they do. (Go's netpoll waits for whole
        /// milliseconds, however few there are: runtime/netpoll_epoll.go.)
        fn coalesce(s: *Self, delay: u64) u64 {
            if (delay >= crowd_slack_ns) return delay;
            var pending: u32 = 0;
            for (s.procs()) |p| pending += p.?.timers.len.load(.monotonic);
            return if (pending < crowd) delay else crowd_slack_ns;
        }

        /// The Ps beyond GOMAXPROCS. The first P takes care of their timers.
        inline fn leftTo(s: *Self, p: *P) []const ?*P {
            const from = s.gomaxprocs.load(.monotonic);
            const to = s.nallp.load(.acquire);
            if (planted == .dead_timers_left) return &.{};
            return if (p.id != 0 or from >= to) &.{} else s.allp[from..to];
        }

        /// When the first timer is due that Ps beyond GOMAXPROCS have left to `p`.
        pub fn earliestLeftTo(s: *Self, p: *P) u64 {
            var until: u64 = never;
            for (leftTo(s, p)) |dead| until = @min(until, dead.?.timers.earliest.load(.acquire));
            return until;
        }

        /// Whether timers that `p` should run are due.
        pub fn timersDue(s: *Self, p: *P, now: u64) bool {
            if (p.timers.earliest.load(.monotonic) <= now) return true;
            for (leftTo(s, p)) |dead| {
                if (dead.?.timers.earliest.load(.monotonic) <= now) return true;
            }
            return false;
        }

        fn earliestTimer(s: *Self) u64 {
            var until: u64 = never;
            for (s.procs()) |p| until = @min(until, p.?.timers.earliest.load(.acquire));
            return until;
        }

        /// Whether one more M may spin: so many do at most, of the Ps that are busy.
        fn mayBegin(s: *Self, limit: u32) bool {
            const percent = Host.tunables.native_spinning.get();
            const busy: u64 = limit -| s.npidle.load(.monotonic);
            return 100 * @as(u64, s.nmspinning.load(.monotonic)) < percent * busy;
        }

        /// Looks at all other Ps in random order, a few times; the last time also at their timers
        /// and at the goroutine each has next.
        fn steal(s: *Self, p: *P, now: *u64, until: *u64) Look {
            const all = s.procs();
            const n: u32 = @intCast(all.len);
            const rounds = Host.tunables.native_steal_rounds.get();
            for (0..rounds) |round| {
                const last = round == rounds - 1;
                var at = p.random(n);
                const stride = coprime(p, n);
                for (0..n) |_| {
                    at = (at + stride) % n;
                    const victim = all[at].?;
                    if (victim == p) continue;
                    if (last) {
                        const fired = p.counters.timer_steals;
                        until.* = @min(until.*, runTimers(s, p, victim, now));
                        if (p.counters.timer_steals != fired) {
                            if (p.runq.popNext() orelse p.runq.pop()) |g| return .{ .found = g };
                            return .again;
                        }
                    }
                    // Also from a P that is idle: one that is being handed over has work, and its M
                    // may take a while to come.
                    const idle = planted == .idle_skipped and
                        victim.status.load(.monotonic) == .idle;
                    if (idle) continue;
                    if (last) Host.letRun(victim);
                    var stolen: u64 = 0;
                    const g = p.runq.stealFrom(&victim.runq, last, &stolen) orelse continue;
                    count(&p.counters.steals, stolen);
                    Host.noteSteal(p, victim, g, stolen);
                    return .{ .found = g };
                }
                if (s.stopping.load(.monotonic)) return .again;
                if (!last) Env.spin();
            }
            return .nothing;
        }

        /// A step that visits all of 0..n, each once.
        fn coprime(p: *P, n: u32) u32 {
            if (n <= 2) return 1;
            var stride = p.random(n - 1) + 1;
            while (std.math.gcd(stride, n) != 1) stride = stride % (n - 1) + 1;
            return stride;
        }

        /// For an M that has dropped its P and stopped spinning. True if there is work, and it got
        /// a P.
        fn takePForWork(s: *Self, m: *M) bool {
            if (!anyWork(s)) return false;
            s.lock.lock();
            const p = s.takeIdlePSpinning();
            s.lock.unlock();
            Self.acquireP(m, p orelse return false);
            return true;
        }

        fn anyWork(s: *Self) bool {
            if (s.queue.len.load(.seq_cst) > 0) return true;
            for (s.procs()) |p| {
                if (p.?.status.load(.monotonic) != .dead and !p.?.runq.isEmpty()) return true;
            }
            return false;
        }
    };
}
