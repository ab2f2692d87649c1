//! The scheduler of the native lane: which M runs which goroutine, and which M sleeps.
//!
//! The protocols are those of Go's runtime/proc.go, by the same names. What keeps a wake-up from
//! being lost is one rule with two sides:
//!  - a thread that makes work (a goroutine runnable, a timer) publishes it, then, after a full
//!    barrier, reads `nmspinning`, and starts a spinning M if there is none and a P is idle
//!    (`wakeP`);
//!  - an M that gives up looking takes itself out of `nmspinning` by an atomic decrement, a full
//!    barrier, and then looks at everything again (`findRunnable`, after "recheck").
//! So either the maker sees a spinner gone, or the spinner sees the work. An M that finds work and
//! was the last one spinning starts another (`resetSpinning`), since there may be more.
//!
//! Generic over the environment and the host. The host says what a goroutine runs, and what polling
//! the network and making a thread are; `zsrc/check` has one in which a thread is a fiber, and
//! explores this very code.
//!
//! Locks: `lock` guards the lists of idle Ms and Ps, the global queue and the number of Ps. It is
//! taken after a heap of timers' lock or a channel's, never before one.
const std = @import("std");
const runq = @import("runq.zig");
const types = @import("types.zig");
const count = types.count;

/// Go's limit is 1024 too (runtime/debug.go before 1.10); here it bounds an array.
pub const most_procs = 1024;

pub fn Proc(comptime Env: type, comptime Host: type) type {
    return struct {
        const Self = @This();
        pub const T = types.Types(Env, Host.Start);
        pub const G = T.G;
        pub const M = T.M;
        pub const P = T.P;
        pub const Batch = T.Batch;
        const never = T.Timers.never;
        const planted = if (@hasDecl(Env, "planted")) Env.planted else .none;

        lock: Env.Lock = .{},
        gomaxprocs: Env.Atomic(u32) = .init(0),
        /// All Ps that ever were, those beyond GOMAXPROCS are dead.
        allp: [most_procs]?*P = @splat(null),
        nallp: Env.Atomic(u32) = .init(0),
        idle_p: ?*P = null,
        npidle: Env.Atomic(u32) = .init(0),
        idle_m: ?*M = null,
        nmidle: Env.Atomic(u32) = .init(0),
        /// Ms that exist, including those that have a thread in the making.
        mcount: u32 = 0,
        max_threads: u32 = 10_000,
        nmspinning: Env.Atomic(u32) = .init(0),
        /// An M wanted to spin and found no P: an M that drops one should look again.
        needspinning: Env.Atomic(u32) = .init(0),
        queue: runq.GlobalQueue(Env, G) = .{},
        /// When the network was looked at last, 0 while an M waits in the poller.
        lastpoll: Env.Atomic(u64) = .init(1),
        /// When the waiting M will return by itself; 0: it has no limit, or no M waits.
        poll_until: Env.Atomic(u64) = .init(0),
        stopping: Env.Atomic(bool) = .init(false),
        /// There was no thread for a P: see refuseM. Changes under `lock`.
        refused: Env.Atomic(bool) = .init(false),
        /// sysmon sleeps until an M takes a P. Under `lock`.
        sysmon_waits: bool = false,
        thread_limit_hits: Env.Atomic(u64) = .init(0),
        handoffs: Env.Atomic(u64) = .init(0),
        retakes: Env.Atomic(u64) = .init(0),
        netpolls: Env.Atomic(u64) = .init(0),

        // ---- M and P ----

        pub fn acquireP(m: *M, p: *P) void {
            if (m.p != null) Env.fatal("M {d} has a P already", .{m.id});
            p.m.store(m, .monotonic);
            p.status.store(.running, .release);
            m.p = p;
        }

        pub fn releaseP(m: *M) *P {
            const p = m.p.?;
            m.p = null;
            p.m.store(null, .monotonic);
            p.status.store(.idle, .release);
            return p;
        }

        /// With the lock. A P beyond GOMAXPROCS dies here, at the latest.
        pub fn putIdleP(s: *Self, p: *P) void {
            if (std.debug.runtime_safety and !p.runq.isEmpty())
                Env.fatal("P {d} goes idle with work", .{p.id});
            if (p.id >= s.gomaxprocs.load(.monotonic)) {
                // Its timers stay; others run them.
                return p.status.store(.dead, .release);
            }
            p.idle_next = s.idle_p;
            s.idle_p = p;
            _ = s.npidle.fetchAdd(1, .seq_cst);
        }

        /// With the lock.
        pub fn takeIdleP(s: *Self) ?*P {
            const p = s.idle_p orelse return null;
            s.idle_p = p.idle_next;
            p.idle_next = null;
            _ = s.npidle.fetchSub(1, .seq_cst);
            if (s.sysmon_waits) {
                s.sysmon_waits = false;
                Host.wakeSysmon(s);
            }
            return p;
        }

        /// As takeIdleP, for one that wants to spin.
        pub fn takeIdlePSpinning(s: *Self) ?*P {
            return s.takeIdleP() orelse {
                if (planted != .no_needspinning) s.needspinning.store(1, .seq_cst);
                return null;
            };
        }

        fn putIdleM(s: *Self, m: *M) void {
            m.idle = true;
            m.idle_next = s.idle_m;
            s.idle_m = m;
            _ = s.nmidle.fetchAdd(1, .monotonic);
        }

        fn takeIdleM(s: *Self) ?*M {
            const m = s.idle_m orelse return null;
            s.idle_m = m.idle_next;
            m.idle_next = null;
            m.idle = false;
            _ = s.nmidle.fetchSub(1, .monotonic);
            return m;
        }

        /// With the lock. For an M that wakes up by itself: false if another thread took it off the
        /// list.
        pub fn unlistM(s: *Self, m: *M) bool {
            var link = &s.idle_m;
            while (link.*) |each| : (link = &each.idle_next) {
                if (each != m) continue;
                link.* = m.idle_next;
                m.idle_next = null;
                m.idle = false;
                _ = s.nmidle.fetchSub(1, .monotonic);
                return true;
            }
            return false;
        }

        /// Counts an M before it is made; false if there may be no more.
        pub fn mayAddM(s: *Self) bool {
            s.lock.lock();
            defer s.lock.unlock();
            if (s.mcount >= s.max_threads or s.stopping.load(.monotonic)) return false;
            s.mcount += 1;
            return true;
        }

        /// The last of an M, and of one that could not be made.
        pub fn endM(s: *Self) void {
            s.lock.lock();
            s.mcount -= 1;
            // One that got no thread while this M still counted.
            const stops = s.stopping.load(.monotonic) or planted == .ending_forgets_refused;
            const p = if (stops) null else s.takeRefusedP();
            s.lock.unlock();
            if (p) |refused| s.startM(refused, false);
        }

        /// When all has to end: wakes the idle Ms, which end. Returns how many Ms there are, idle
        /// or not.
        pub fn endIdleMs(s: *Self) u32 {
            s.lock.lock();
            defer s.lock.unlock();
            while (s.takeIdleM()) |m| {
                m.quit = true;
                m.note.wake();
            }
            return s.mcount;
        }

        /// Puts the M to sleep until it is given a P. False if it has to end instead.
        pub fn stopM(s: *Self, m: *M) bool {
            if (m.p != null or m.spinning) Env.fatal("M {d} stops with a P, or spinning", .{m.id});
            s.lock.lock();
            if (s.stopping.load(.monotonic) and planted != .rests_at_the_end) {
                s.lock.unlock();
                return false;
            }
            // One that got no thread while this M was about to stop.
            if (planted != .stopm_forgets_refused) if (s.takeRefusedP()) |p| {
                s.becomeSpinning(m);
                s.lock.unlock();
                acquireP(m, p);
                return true;
            };
            s.putIdleM(m);
            s.lock.unlock();
            if (!Host.sleepM(s, m)) return false;
            return s.takeNextP(m);
        }

        /// Of an M that was woken.
        pub fn takeNextP(_: *Self, m: *M) bool {
            m.note.clear();
            Env.reads(&m.nextp);
            const p = m.nextp orelse {
                if (!m.quit) Env.fatal("M {d} was woken without a P", .{m.id});
                return false;
            };
            m.nextp = null;
            acquireP(m, p);
            return true;
        }

        /// Has an M run `given`, or an idle P; makes one if none is idle. If `spinning`, the caller
        /// has counted it in nmspinning.
        pub fn startM(s: *Self, given: ?*P, spinning: bool) void {
            s.lock.lock();
            const p = given orelse s.takeIdleP() orelse {
                if (spinning) s.endSpinning();
                return s.lock.unlock();
            };
            if (s.takeIdleM()) |m| {
                s.lock.unlock();
                m.spinning = spinning;
                m.nextp = p;
                return m.note.wake();
            }
            // Making a thread may have to wait for what a goroutine holds that was stopped with its
            // own.
            if (!spinning and planted != .thread_before_tied) if (s.takeTied(p)) |g| {
                s.lock.unlock();
                const own = g.locked_m.?;
                own.nextp = p;
                return own.note.wake();
            };
            if (s.mcount < s.max_threads) {
                s.mcount += 1;
                s.lock.unlock();
                return Host.newM(s, p, spinning);
            }
            s.refuseM(p, spinning);
        }

        /// With the lock, which it lets go: there is no thread for `p`. Ms that come back from
        /// where they block find it idle, and the work with it. So does the one that waits in the
        /// poller, which is woken; the next one that would stop takes it instead, and one that ends
        /// has another made.
        fn refuseM(s: *Self, p: *P, spinning: bool) void {
            if (spinning) s.endSpinning();
            // What only this P could reach goes where every M looks.
            s.drain(p);
            s.putIdleP(p);
            // A read-modify-write, for its barrier: see the poller's part in findRunnable.
            _ = s.refused.swap(true, .seq_cst);
            s.lock.unlock();
            if (s.lastpoll.load(.seq_cst) == 0 and planted != .poller_not_asked) Host.pollBreak(s);
            if (s.thread_limit_hits.fetchAdd(1, .monotonic) == 0) Host.warnThreadLimit(s);
        }

        /// With the lock: a P for which there was no thread, or another one that is idle.
        fn takeRefusedP(s: *Self) ?*P {
            if (!s.refused.load(.monotonic)) return null;
            s.refused.store(false, .monotonic);
            return s.takeIdleP();
        }

        /// sysmon's: tries again, since there may be no M left that would.
        pub fn retryM(s: *Self) void {
            s.lock.lock();
            const allowed = s.mcount < s.max_threads and !s.stopping.load(.monotonic);
            const p = if (allowed) s.takeRefusedP() else null;
            s.lock.unlock();
            if (p) |refused| s.startM(refused, false);
        }

        /// newM could not make the thread. An M may have come free since.
        pub fn newMFailed(s: *Self, p: *P, spinning: bool) void {
            s.lock.lock();
            s.mcount -= 1;
            const heir = if (planted == .failure_asks_nobody) null else s.heirOf(p);
            const m = heir orelse return s.refuseM(p, spinning);
            if (spinning) s.endSpinning();
            s.lock.unlock();
            m.nextp = p;
            m.note.wake();
        }

        pub fn endSpinning(s: *Self) void {
            if (s.nmspinning.fetchSub(1, .seq_cst) == 0) Env.fatal("nmspinning is negative", .{});
        }

        pub fn becomeSpinning(s: *Self, m: *M) void {
            m.spinning = true;
            _ = s.nmspinning.fetchAdd(1, .seq_cst);
            s.needspinning.store(0, .seq_cst);
        }

        /// An M that has found work stops spinning; if it was the last, another starts.
        pub fn resetSpinning(s: *Self, m: *M) void {
            m.spinning = false;
            s.endSpinning();
            if (planted != .last_spinner_forgotten) s.wakeP();
        }

        /// There may be work for one more M. After the work was published.
        pub inline fn wakeP(s: *Self) void {
            // With one P, an M that has work to publish holds it, or will find no other idle.
            if (s.gomaxprocs.load(.monotonic) > 1) s.wakePSlow();
        }

        /// As wakeP, for a thread that holds no P.
        pub noinline fn wakePSlow(s: *Self) void {
            // A read-modify-write, for its barrier: the work must be visible before nmspinning is
            // read.
            const spinning = if (planted == .wakep_without_barrier)
                s.nmspinning.load(.monotonic)
            else
                s.nmspinning.fetchAdd(0, .seq_cst);
            if (spinning != 0 or s.npidle.load(.monotonic) == 0 and s.settled()) return;
            if (s.nmspinning.cmpxchgStrong(0, 1, .seq_cst, .monotonic) != null) return;
            s.lock.lock();
            const p = s.takeIdlePSpinning() orelse {
                s.endSpinning();
                return s.lock.unlock();
            };
            s.lock.unlock();
            s.startM(p, true);
        }

        /// Whether an M that drops its P will look for work again: without an idle P, that has to
        /// be asked for.
        inline fn settled(s: *Self) bool {
            return s.needspinning.load(.monotonic) != 0;
        }

        // ---- making goroutines runnable ----

        /// By the owner of `p`. The goroutine that was next until now, if any, goes to the end.
        pub inline fn putNext(s: *Self, p: *P, g: *G) void {
            if (p.runq.pushNext(g)) |kicked| s.putSlow(p, kicked);
        }

        /// By the owner of `p`.
        pub inline fn putLast(s: *Self, p: *P, g: *G) void {
            if (!p.runq.push(g)) s.putSlow(p, g);
        }

        noinline fn putSlow(s: *Self, p: *P, g: *G) void {
            while (true) {
                var batch = p.runq.overflow(g) orelse {
                    if (p.runq.push(g)) return;
                    continue;
                };
                s.lock.lock();
                s.queue.pushAll(&batch);
                return s.lock.unlock();
            }
        }

        pub fn putGlobal(s: *Self, g: *G) void {
            s.lock.lock();
            s.queue.push(g);
            s.lock.unlock();
        }

        /// For a thread that holds no P: puts all of the batch into the global queue, and starts Ms
        /// for it.
        pub fn inject(s: *Self, batch: *Batch) void {
            var n = batch.len;
            if (n == 0) return;
            s.lock.lock();
            s.queue.pushAll(batch);
            s.lock.unlock();
            // As Go's injectglist: an M for each, as far as there are Ps; these start more.
            const idle = s.npidle.load(.seq_cst);
            const enough = idle >= n;
            n = @min(n, idle);
            while (n > 0) : (n -= 1) {
                s.lock.lock();
                const p = s.takeIdlePSpinning();
                s.lock.unlock();
                s.startM(p orelse return, false);
            }
            if (!enough) s.wakePSlow();
        }

        /// With the lock: what is in the local queue goes to the global one. By the owner of `p`.
        pub fn drain(s: *Self, p: *P) void {
            if (p.runq.popNext()) |g| s.queue.push(g);
            while (p.runq.pop()) |g| s.queue.push(g);
        }

        /// With the lock, by the owner of `p`: a goroutine that waits for its turn on a thread of
        /// its own, out of what `p` and the global queue hold. It needs a P, but no other thread.
        fn takeTied(s: *Self, p: *P) ?*G {
            s.drain(p);
            var before: ?*G = null;
            var at = s.queue.list.head;
            while (at) |g| {
                if (g.locked_m != null) {
                    s.queue.removeAfter(before, g);
                    return g;
                }
                before = g;
                at = g.next;
            }
            return null;
        }

        /// The M that the owner of `p` may pass it on to at once: that of the goroutine which is
        /// next, if it has one of its own, an idle one, or else that of another goroutine of that
        /// kind. `busy`: there is something else to look at first.
        pub fn takeHeir(s: *Self, p: *P, busy: bool) ?*M {
            s.lock.lock();
            defer s.lock.unlock();
            const tied = planted != .tied_is_no_heir;
            if (tied and
                !busy and p.runq.isEmpty()) if (s.queue.list.head) |g| if (g.locked_m) |own|
            {
                s.queue.removeAfter(null, g);
                // Its slice begins now: it does not come past findRunnable.
                s.attend(p);
                p.schedtick.store(p.schedtick.raw +% 1, .monotonic);
                return own;
            };
            return s.heirOf(p);
        }

        /// With the lock.
        fn heirOf(s: *Self, p: *P) ?*M {
            if (s.takeIdleM()) |m| return m;
            if (planted == .tied_is_no_heir) return null;
            const g = s.takeTied(p) orelse return null;
            return g.locked_m.?;
        }

        /// With the lock: a share of the global queue, all but the first to the local one. Not one
        /// more than its share, as Go takes: with one hog more than Ps the one behind would wait
        /// for a whole slice of this P, while the next P finds the queue empty.
        pub fn takeGlobal(s: *Self, p: *P, most: u32) ?*G {
            const len: u32 = @intCast(s.queue.list.len);
            if (len == 0) return null;
            var n = @min(
                @max(1, len / s.gomaxprocs.load(.monotonic)),
                len,
                Env.local_queue_size / 2,
            );
            if (most > 0) n = @min(n, most);
            const first = s.queue.pop();
            while (n > 1) : (n -= 1) {
                const g = s.queue.pop().?;
                if (!p.runq.push(g)) {
                    s.queue.push(g);
                    break;
                }
            }
            return first;
        }

        // ---- finding work, in find.zig ----

        const finding = @import("find.zig").Finding(Self, Env, Host);
        pub const takeLocal = finding.takeLocal;
        pub const findRunnable = finding.findRunnable;
        pub const attend = finding.attend;
        pub const timersDue = finding.timersDue;
        pub const earliestLeftTo = finding.earliestLeftTo;

        pub inline fn procs(s: *Self) []const ?*P {
            return s.allp[0..s.nallp.load(.acquire)];
        }

        // ---- handing a P on ----

        /// Of a P that no M holds: gives it to one if there is something to do for it.
        pub fn handOffP(s: *Self, p: *P) void {
            _ = s.handoffs.fetchAdd(1, .monotonic);
            const live = p.id < s.gomaxprocs.load(.monotonic);
            if (live) {
                if (!p.runq.isEmpty() or s.queue.len.load(.seq_cst) > 0) return s.startM(p, false);
                // No M looks for work: one should.
                if (s.nmspinning.load(.seq_cst) + s.npidle.load(.seq_cst) == 0 and
                    s.nmspinning.cmpxchgStrong(0, 1, .seq_cst, .monotonic) == null)
                {
                    s.needspinning.store(0, .seq_cst);
                    return s.startM(p, true);
                }
            }
            s.lock.lock();
            if (live and s.queue.list.len > 0) {
                s.lock.unlock();
                return s.startM(p, false);
            }
            // The last P that runs: an M has to look at the network.
            if (live and s.npidle.load(.monotonic) + 1 == s.gomaxprocs.load(.monotonic) and
                Host.pollWanted(s) and s.lastpoll.load(.seq_cst) != 0)
            {
                s.lock.unlock();
                return s.startM(p, false);
            }
            s.drain(p);
            const due = @min(p.timers.earliest.load(.acquire), s.earliestLeftTo(p));
            s.putIdleP(p);
            const handed_over = s.queue.list.len > 0;
            s.lock.unlock();
            if (handed_over) s.wakePSlow();
            // Perhaps no M waits for its timers.
            if (due != never) s.timerAdded(due);
        }

        /// The next timer is earlier than before, on a P that may be idle: an M that waits in the
        /// poller must not oversleep it.
        pub fn timerAdded(s: *Self, when: u64) void {
            if (s.lastpoll.load(.seq_cst) == 0) {
                const until = s.poll_until.load(.seq_cst);
                const breaks = planted != .poller_unbroken;
                if (breaks and (until == 0 or until > when)) Host.pollBreak(s);
            } else s.wakePSlow();
        }

        /// There is a first thing to poll for: perhaps no M waits for the network yet.
        pub fn firstPollable(s: *Self) void {
            if (s.lastpoll.load(.seq_cst) != 0 and planted != .poll_unannounced) s.wakePSlow();
        }

        // ---- goroutines that are tied to a thread ----

        /// `g` may run only on its own M: that one gets the P of `m`, which stops. False if `m`
        /// ends.
        pub fn startLockedM(s: *Self, m: *M, g: *G) bool {
            const own = g.locked_m.?;
            if (m.spinning) s.resetSpinning(m);
            const p = releaseP(m);
            if (planted == .wakes_before_it_gives) own.note.wake();
            Env.writes(&own.nextp);
            own.nextp = p;
            if (planted != .wakes_before_it_gives) own.note.wake();
            return s.stopM(m);
        }

        /// The goroutine of a locked M waits, or was put into a queue: the M waits for it.
        pub fn stopLockedM(s: *Self, m: *M) bool {
            if (m.p != null) {
                const p = releaseP(m);
                if (planted != .waits_with_its_p) s.handOffP(p);
            }
            while (m.note.sleep(null) != .woken) {}
            return s.takeNextP(m);
        }

        // ---- system calls ----

        /// From here on sysmon may take the P.
        pub inline fn enterSyscall(_: *Self, m: *M) void {
            const p = m.p.?;
            p.syscalltick.store(p.syscalltick.raw +% 1, .monotonic);
            m.oldp = p;
            m.p = null;
            // Release pairs with the acquire of sysmon's CAS.
            p.status.store(.syscall, .release);
        }

        /// True if the M has a P again: its old one, or an idle one.
        pub fn exitSyscall(s: *Self, m: *M) bool {
            const p = m.oldp.?;
            m.oldp = null;
            if (p.status.cmpxchgStrong(.syscall, .running, .acq_rel, .monotonic) == null) {
                m.p = p;
                // It may have been retaken, and be in the system call of another M by now.
                p.m.store(m, .monotonic);
                p.syscalltick.store(p.syscalltick.raw +% 1, .monotonic);
                return true;
            }
            s.lock.lock();
            const idle = s.takeIdleP();
            s.lock.unlock();
            acquireP(m, idle orelse return false);
            return true;
        }

        /// sysmon's: takes the P of an M in a system call. False if that came back first.
        pub fn retake(s: *Self, p: *P) bool {
            if (planted == .retake_without_cas) {
                if (p.status.load(.monotonic) != .syscall) return false;
                p.status.store(.idle, .monotonic);
            } else if (p.status.cmpxchgStrong(.syscall, .idle, .acq_rel, .monotonic) != null)
                return false;
            p.m.store(null, .monotonic);
            p.syscalltick.store(p.syscalltick.raw +% 1, .monotonic);
            _ = s.retakes.fetchAdd(1, .monotonic);
            s.handOffP(p);
            return true;
        }

        // ---- GOMAXPROCS ----

        /// With room for them in allp: Ps 0..n live from here on, the others hand their work over
        /// when their Ms next look for some. Returns the number before.
        pub fn setProcs(s: *Self, n: u32) u32 {
            s.lock.lock();
            const before = s.gomaxprocs.load(.monotonic);
            s.gomaxprocs.store(n, .seq_cst);
            // Idle ones die at once, dead ones come back.
            var keep: ?*P = null;
            var kept: u32 = 0;
            while (s.idle_p) |p| {
                s.idle_p = p.idle_next;
                p.idle_next = null;
                if (p.id >= n) {
                    p.status.store(.dead, .release);
                } else {
                    p.idle_next = keep;
                    keep = p;
                    kept += 1;
                }
            }
            s.idle_p = keep;
            for (s.procs()[0..n]) |each| {
                const p = each.?;
                if (p.status.load(.monotonic) != .dead) continue;
                p.status.store(.idle, .release);
                p.idle_next = s.idle_p;
                s.idle_p = p;
                kept += 1;
            }
            s.npidle.store(kept, .seq_cst);
            for (s.procs()) |each| {
                if (each.?.id >= n) each.?.attention.store(true, .monotonic);
            }
            s.lock.unlock();
            if (n > before) s.wakePSlow();
            return before;
        }
    };
}
