//! The P of a serial lane: which M holds it, how it changes hands, and what runs on it next.
//!
//! All of it happens under the host's lock. An M that runs out of work looks again at everything
//! that could give it some, in the order of Go's findRunnable, and only then gives the P up. One M
//! at most waits in the poller; a thread that makes work for a free P wakes that one, or sends
//! another.
const std = @import("std");
const os = @import("../os/os.zig");
const arch = @import("../arch/arch.zig");
const g_mod = @import("g.zig");
const m_mod = @import("m.zig");
const timer_mod = @import("timer.zig");
const sysmon = @import("sysmon.zig");
const ranks = @import("ranks.zig");

const G = g_mod.G;
const M = m_mod.M;
const Timer = timer_mod.Timer;

/// Cache lines of a waiting goroutine's stack that its turn touches, from `warm_below` bytes under
/// its registers on. Measured: with two more, or two less, a turn among a thousand takes longer.
const warm_lines = 7;
const warm_below = 128;
/// A goroutine that was woken last runs next, but not more often in a row than this, so that a
/// pair that wakes each other does not starve the queue.
const next_turns = ranks.others_turns;
/// A blocking call that began within this time of a signal is interrupted for it.
const nudge_interval_ns = 5 * std.time.ns_per_ms;
const most_nudges = 3;
/// The network is looked at this often even while there is work.
const poll_turns = ranks.join_turns;
/// Goroutines that were preempted have at least one turn in so many, each as long as that one was,
/// or as this number of slices.
const longest_period = 4;
const longest_turn = 10;
/// In an explored run one that is behind all others has a turn after so many of theirs, which may
/// never end.
const longest_behind = 1000;
/// Before virtual time jumps, what was sent within the process has this long to arrive.
const virtual_grace_ns = std.time.ns_per_ms;

/// The part of a Lane that is about its P.
pub fn Processor(comptime Lane: type, comptime Host: type) type {
    return struct {
        const Self = Lane;

        /// The calling goroutine came back from a blocking call and finds its P taken: it gets a
        /// free one, or queues itself and its M stops. As Go's exitsyscall.
        pub noinline fn regain(self: *Self, g: *G) void {
            const m = g.m.?;
            if (m.mask_again) self.setMaskAgain(m);
            const came = if (self.ring.wants(.goroutine_unblock)) os.nanotime() else 0;
            if (self.owner.load(.monotonic) == null and !self.main_done) {
                sysmon.own(self, m);
                self.found(m);
                g.transition(.syscall, .running);
                self.running = g;
                _ = self.bumpTick();
                return self.noteUnblock(g, came);
            }
            self.stayOnThread(g);
            m.curg = null;
            Host.swap(m, null);
            // Not sooner: the host may let its lock go in the swap, and until it has that back and
            // is in the queue it counts as one that blocks.
            g.transition(.syscall, .runnable);
            self.found(m);
            if (g.rank == .normal) self.settle(g, &self.runq) else self.settleRanked(g);
            arch.switchTo(&g.sp, m.sp);
            self.freeThread(g);
            // The switch that brought it back may have let the lock go, and the P be taken.
            if (self.running == g) self.noteUnblock(g, came);
        }

        /// Before all others. The goroutine that was next until now goes to the end of the queue.
        pub inline fn goNext(self: *Self, g: *G) void {
            if (self.runnext) |other| self.runq.push(other);
            self.runnext = g;
        }

        /// g0's loop: runs goroutines while this M holds the P.
        pub fn schedule(self: *Self, m: *M) void {
            if (m.lock_waited_ns != 0) self.noteLockWait(m);
            while (self.owner.load(.monotonic) == m) {
                const g = findRunnable(self, m) orelse return;
                self.putOn(m, g);
                Host.swap(m, g);
                arch.switchTo(&m.sp, g.sp);
            }
        }

        /// The next goroutine, if there is one without waiting.
        pub inline fn pickNext(self: *Self) ?*G {
            if (self.attention.load(.monotonic)) {
                attend(self);
                if (wantsG0(self)) return null;
                if (self.high.len > 0) if (self.pickHigh()) |g| return g;
            }
            self.turn +%= 1;
            if (self.turn % next_turns == 0) return pickFromQueue(self);
            if (self.runnext) |g| {
                self.runnext = null;
                return g;
            }
            const g = self.runq.pop() orelse return pickSlow(self);
            warmNext(self);
            return g;
        }

        /// In the turn that is not for the goroutine that was woken last.
        noinline fn pickFromQueue(self: *Self) ?*G {
            comptime std.debug.assert(poll_turns % next_turns == 0);
            if (self.turn % poll_turns == 0) lookRarely(self);
            if (self.runnext) |g| self.runq.push(g);
            self.runnext = null;
            return self.runq.pop() orelse pickSlow(self);
        }

        /// The next goroutine, if it waits on a thread of its own, another than `m`, and there is
        /// nothing else to look at first. It is in no queue then.
        pub fn takeTied(self: *Self, m: *M) ?*G {
            if (self.options.explore) return null;
            if (self.attention.load(.monotonic)) attend(self);
            if (wantsG0(self) or (self.turn +% 1) % next_turns == 0) return null;
            if (self.high.len > 0) return null;
            const g = self.runnext orelse self.runq.head orelse return null;
            const own = g.locked_m orelse return null;
            if (own == m or g == self.held) return null;
            self.turn +%= 1;
            if (self.runnext == g) self.runnext = null else _ = self.runq.pop();
            return g;
        }

        /// Among many goroutines the context of the one that runs is in no cache by the time its
        /// turn comes again. A turn may take less than memory does to answer, so that the context
        /// of the one after the next in the queue is fetched while this one runs.
        inline fn warmNext(self: *Self) void {
            const g = (self.runq.head orelse return).next orelse return;
            // Of one that has begun: to fetch what is mapped nowhere costs more than it saves.
            if (g.stack.size > 0)
                inline for (0..warm_lines) |i| prefetch(g.sp -% warm_below +% i * 64);
            Host.prefetch(g);
            // Its own fields come one turn earlier.
            if (g.next) |after| {
                prefetch(@intFromPtr(after));
                prefetch(@intFromPtr(after) + 64);
            }
        }

        inline fn prefetch(address: usize) void {
            @prefetch(@as([*]allowzero const u8, @ptrFromInt(address)), .{});
        }

        fn pickSlow(self: *Self) ?*G {
            if (self.timers.len() > 0) runTimers(self);
            // Not again when the goroutine that waits has looked, and g0 does next, which waits in
            // the poller then.
            const looked = self.turn -% self.turn_in_vain == 1 and !self.options.explore;
            if (!looked) pollIfWaiting(self);
            if (self.runq.pop()) |g| return g;
            const g = self.preempted.pop() orelse {
                if (!looked) self.turn_in_vain = self.turn;
                if (self.high.len + self.low.len == 0) return null;
                const last = self.pickLast() orelse return null;
                if (last.rank == .low) self.hog_tick.store(self.tick.raw +% 1, .monotonic);
                return last;
            };
            self.hog_tick.store(self.tick.raw +% 1, .monotonic);
            beginHogsTurn(self, os.nanotime());
            return g;
        }

        noinline fn lookRarely(self: *Self) void {
            pollIfWaiting(self);
            self.letLowJoin();
        }

        /// What was posted, and sysmon's requests: timers are due, the network was not looked at,
        /// preempted goroutines have waited.
        pub noinline fn attend(self: *Self) void {
            Host.inbox.attend(&self.attention, Host.attend);
            if (self.asked.swap(false, .acquire)) answerSysmon(self);
            if (self.options.explore) return chooseNext(self);
            self.keepAttention();
        }

        fn answerSysmon(self: *Self) void {
            if (self.lock_wanted.load(.monotonic)) offerLock(self);
            if (self.events_hurry) self.hurryUp();
            if (self.timers.len() > 0) runTimers(self);
            if (Host.pollWanted() or Host.signalsWatched()) poll(self);
            // In an explored run they count turns: there are as many each time.
            if (self.options.explore) return;
            const now = os.nanotime();
            const slice_ns = self.tunables.preempt_slice_ns.get();
            if (self.preempted.len > 0 and now > self.hogs_due) {
                self.goNext(self.preempted.pop().?);
                beginHogsTurn(self, now);
            }
            self.joinWhenDue(now, slice_ns);
        }

        /// One that was preempted before is next.
        fn beginHogsTurn(self: *Self, now: u64) void {
            self.hog_turn_at.store(now, .monotonic);
            self.hog_turn.store(self.tick.raw +% 1, .release);
            self.hogs_due = now + longest_period * self.tunables.preempt_slice_ns.get();
        }

        /// Those that were preempted, of which one has just run for `ran_ns`, have every second
        /// turn however busy the others are, or a rarer one the more there are of the others. A
        /// turn may be longer than a slice, for the host's lock takes its time.
        pub fn putOffHogs(self: *Self, now: u64, ran_ns: u64) void {
            const slice_ns = self.tunables.preempt_slice_ns.get();
            const turn_ns = std.math.clamp(ran_ns, slice_ns, longest_turn * slice_ns);
            const period = self.runq.len / (self.preempted.len + 1) + 1;
            self.hogs_due = now + turn_ns * (std.math.clamp(period, 2, longest_period) - 1);
        }

        /// Lets a thread that waits for the host's lock have it. Not a blocking call, though it
        /// looks like one: the P stays. sysmon takes the M for one that is on g0.
        pub noinline fn offerLock(self: *Self) void {
            const m = self.owner.load(.monotonic).?;
            const state = m.state.load(.monotonic);
            m.state.store(null, .monotonic);
            self.offering = true;
            const asked = self.lockAsked();
            Host.offerLock();
            if (asked != 0) self.noteOffer(asked);
            self.offering = false;
            m.state.store(state, .monotonic);
            // It may have taken long to get it back: from now on it is the lane's turn.
            self.lock_wanted.store(false, .monotonic);
            self.offered_at.store(os.nanotime(), .monotonic);
        }

        /// In an explored run: puts the next goroutine where pickNext looks first.
        fn chooseNext(self: *Self) void {
            self.attention.store(true, .release); // at the next turn again
            // A turn in which no goroutine can run does not count: how many there are depends on
            // the threads.
            if (!anyRunnable(self)) {
                self.turn -%= 1;
                return;
            }
            // The turn at which the network is looked at, and the queue goes first.
            if ((self.turn +% 1) % next_turns == 0) {
                self.turn +%= 1;
                pollIfWaiting(self);
            }
            if (self.chosen) {
                self.chosen = false;
                if (self.runnext != null) return;
            }
            gather(self);
            if (self.preempted.len > 0 and self.turn -% self.behind_since > longest_behind) {
                self.behind_since = self.turn;
                self.runq.push(self.preempted.pop().?);
            }
            if (self.runq.len == 0) return; // those that were preempted are left
            self.runnext = self.runq.takeAt(self.chooser.choose(&self.runq, null).?);
        }

        /// In an explored run, at a call of the program's, of `object` if that is not 0: one of
        /// those that could run goes on.
        pub fn giveWay(self: *Self, g: *G, object: usize) void {
            gather(self);
            if (self.runq.len == 0) return;
            // Only while it is about to be used: another may have its address afterwards.
            g.at_object = object;
            defer g.at_object = 0;
            const at = self.chooser.choose(&self.runq, g) orelse return;
            self.runnext = self.runq.takeAt(at);
            self.chosen = true;
            self.gosched(g);
        }

        /// Puts all goroutines that could go on into the queue; in virtual time the one that waits
        /// for the earliest timer may be among them.
        fn gather(self: *Self) void {
            if (self.runnext) |g| self.runq.push(g);
            self.runnext = null;
            if (mayJump(self) and self.net_waiters == 0 and self.chooser.timerFirst()) jump(self);
        }

        /// Virtual time passes.
        fn jump(self: *Self) void {
            self.virtual_ns = @max(self.virtual_ns, self.timers.earliest.raw);
            runTimers(self);
        }

        fn runTimers(self: *Self) void {
            const now = self.now();
            if (self.options.explore) {
                // Of those that are due at one instant any may be first.
                while (self.timers.popOneOf(now, &self.chooser)) |t| t.fire(t);
            } else while (self.timers.popDue(now)) |t| t.fire(t);
        }

        fn pollIfWaiting(self: *Self) void {
            if (Host.pollWanted()) poll(self);
        }

        noinline fn poll(self: *Self) void {
            if (self.poller != null) return;
            self.last_poll.store(os.nanotime(), .monotonic);
            self.counters.netpolls += 1;
            Host.pollNow();
        }

        /// Work for an M that holds the P, waiting for it if need be. Null when the M has given
        /// the P up or the lane stops.
        fn findRunnable(self: *Self, m: *M) ?*G {
            if (m.heir != null) {
                self.bequeath(m);
                return null;
            }
            var looked = false;
            while (true) {
                if (self.refused) {
                    self.refused = false;
                    Host.endRefused();
                    // The run may have ended meanwhile.
                    if (self.owner.load(.monotonic) != m) return null;
                }
                if (self.main_done) {
                    self.owner.store(null, .release);
                    if (!m.main) self.wakeMain();
                    return null;
                }
                if (self.signal_pending) handleSignals(self, m);
                if (self.to_thread != null and self.passP(m)) return null;
                if (m.handed) {
                    m.handed = false;
                    const g = m.locked_g.?;
                    if (g.timed) self.noteTurn(g);
                    return g;
                }
                if (m.locked_g != null or m.ending) {
                    self.leaveP();
                    return null;
                }
                if (!Host.inbox.isEmpty()) Host.inbox.drain();
                if (self.pickStarted()) |g| return g;
                if (wantsG0(self)) continue;
                if (m.main) Host.onSignal();
                if (anyRunnable(self)) continue;
                var look_again_ns: ?u64 = null;
                if (stuck(self)) {
                    look_again_ns = Host.onDeadlock() orelse continue;
                    // It may have left the lock to threads, which wake no M while the P is held.
                    if (wantsG0(self) or anyRunnable(self)) continue;
                }
                if (mayJump(self) and (looked or self.net_waiters == 0)) {
                    looked = false;
                    // Not at the next look at the timers, which sysmon may bring about at any time.
                    jump(self);
                    continue;
                }
                if (self.poller != null) {
                    // Another M waits in the poller already; it must not oversleep our timers.
                    self.owner.store(null, .release);
                    if (self.timers.earliest.load(.monotonic) < self.poller_deadline)
                        Host.pollBreak();
                    return null;
                }
                if (!m.main and self.mainIsIdle()) {
                    // The main thread waits for work itself: signals arrive there, and libraries
                    // that care about threads expect to be on it.
                    self.owner.store(null, .release);
                    self.sendRunner();
                    return null;
                }
                // One that waits for a native goroutine often need not wait long.
                if (self.outside_waiters > 0 and spinForPosts(self)) continue;
                if (!waitForWork(self, m, look_again_ns)) return null;
                looked = true;
            }
        }

        /// All goroutines sleep, and only virtual time has to pass. Blocking calls and other
        /// threads are at work meanwhile: it waits for them.
        fn mayJump(self: *const Self) bool {
            return self.virtual_ns != 0 and self.lost_count == 0 and self.outside_waiters == 0 and
                self.timers.len() > 0;
        }

        fn spinForPosts(self: *Self) bool {
            return self.spinning.spin(Posted{}, self.tunables.spin_ns.get());
        }

        const Posted = struct {
            pub inline fn isWoken(_: Posted) bool {
                return !Host.inbox.isEmpty();
            }
        };

        /// Waits in the poller without the P and the lock. True if this M has the P afterwards.
        /// `look_again_ns` is for when only code outside can help, and may go without a word.
        fn waitForWork(self: *Self, m: *M, look_again_ns: ?u64) bool {
            var deadline = if (self.virtual_ns == 0)
                self.timers.earliest.load(.monotonic)
            else if (mayJump(self))
                os.nanotime() + virtual_grace_ns
            else
                timer_mod.Heap.never;
            if (look_again_ns) |ns| deadline = @min(deadline, os.nanotime() + ns);
            if (Host.inbox.fallAsleep()) return true;
            self.poller = m;
            self.poller_deadline = deadline;
            self.counters.idle += 1;
            self.owner.store(null, .release);
            Host.release(m);
            const start = os.nanotime();
            const wake = Host.pollWait(deadline);
            if (!Host.inbox.isEmpty()) self.spinning.slept(start, self.tunables.spin_ns.get());
            Host.acquire(m);
            Host.inbox.awake();
            self.poller = null;
            const free = self.live and self.owner.load(.monotonic) == null;
            if (free) sysmon.own(self, m);
            if (m.lock_waited_ns != 0) self.noteLockWait(m);
            const now = os.nanotime();
            self.clock.store(now, .monotonic);
            self.last_poll.store(now, .monotonic);
            self.counters.netpolls += 1;
            Host.pollResults();
            if (!Host.inbox.isEmpty()) Host.inbox.drain();
            // The signal may be one that is not written to the poller's pipe.
            if (wake == .interrupted) handleSignals(self, m);
            return free;
        }

        /// Only the main thread runs signal handlers, unless the host knows better.
        pub fn handleSignals(self: *Self, m: *M) void {
            self.signal_pending = false;
            if (m.main or Host.handlesSignals()) return Host.onSignal();
            self.signal_for_main = true;
            self.m0.note.wake();
            self.nudges = most_nudges;
            nudgeMain(self);
        }

        /// The kernel gives a signal to any thread, or to the main one just before that one blocks:
        /// neither ends a goroutine's blocking call there, so that the handlers would wait for its
        /// end. The call is interrupted, and twice more in case it had not begun.
        fn nudgeMain(self: *Self) void {
            self.timers.remove(&self.nudge_timer);
            if (!self.m0.lost.load(.monotonic)) return;
            os.interrupt(self.m0.thread.?);
            self.nudges -= 1;
            if (self.nudges == 0) return;
            self.nudge_timer.when = self.now() + nudge_interval_ns;
            self.nudge_timer.fire = nudgeAgain;
            self.timers.add(self.gpa, &self.nudge_timer) catch return;
            if (self.poller != null and self.nudge_timer.when < self.poller_deadline)
                Host.pollBreak();
        }

        fn nudgeAgain(_: *Timer) callconv(.c) void {
            nudgeMain(Host.lane());
        }

        /// There is something to do that only g0 can.
        pub inline fn wantsG0(self: *const Self) bool {
            return self.signal_pending or self.to_thread != null or self.refused or self.main_done;
        }

        pub inline fn anyRunnable(self: *const Self) bool {
            return self.runnext != null or self.runq.len > 0 or self.preempted.len > 0 or
                self.high.len > 0 or self.low.len > 0;
        }

        /// Nothing can ever happen again without help from outside.
        fn stuck(self: *Self) bool {
            return self.user_timers == 0 and self.net_waiters == 0 and self.lost_count == 0 and
                self.outside_waiters == 0 and
                self.user_count > 0 and self.live and !Host.hopesForSignals();
        }
    };
}
