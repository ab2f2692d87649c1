//! How an M without the P takes it from another M, because that one's goroutine blocks or runs on.
//!
//! A goroutine that blocks keeps its M, as a thread; the P may be taken from it at any time by an M
//! that has the host's lock (`takeOver`). sysmon sends that M (`retake`). What the goroutine finds
//! when it comes back is in processor.zig, `regain`: as in Go's exitsyscall.
const std = @import("std");
const m_mod = @import("m.zig");

/// A free lock is there within this time.
const prompt_lock_ns = std.time.ns_per_ms;
/// So many goroutines that block one after the other may wait for what a preempted one holds.
const convoy = 8;

/// The part of a Lane that is about a P that is taken. For `Env` see ending.zig.
pub fn Taking(comptime Lane: type, comptime Env: type) type {
    return struct {
        const Self = Lane;
        const G = Env.G;
        const M = Env.M;
        const planted = if (@hasDecl(Env, "planted")) Env.planted else .none;

        /// The running goroutine stays on its M, which has no P from here on.
        pub fn lose(self: *Self, g: *G) void {
            g.transition(.running, .syscall);
            g.m.?.lost.store(true, .monotonic);
            self.lost_count += 1;
            self.running = null;
        }

        /// Undoes `lose`, as far as the M is concerned.
        pub fn found(self: *Self, m: *M) void {
            if (!m.lost.load(.monotonic)) return;
            m.lost.store(false, .monotonic);
            self.lost_count -= 1;
            if (m.main) self.timers.remove(&self.nudge_timer);
        }

        /// Takes the P from its owner, if the owner's goroutine blocks or runs on. False if things
        /// moved on since sysmon looked.
        fn takeOver(self: *Self, m: *M, duty: m_mod.Duty) bool {
            const old = self.owner.load(.monotonic) orelse return false;
            const g = self.running orelse return false;
            if (old == m or self.tick.raw != m.about.tick or self.offering) return false;
            lose(self, g);
            self.owner.store(m, .seq_cst);
            _ = self.bumpTick();
            if (duty == .hand_off) {
                m.lock_waited_ns = 0;
                self.counters.handoffs += 1;
                self.record(.preempt, g.id, Env.nanotime() -| m.about.since, 1);
            } else {
                self.counters.retakes += 1;
                self.record(.retake, g.id, Env.nanotime() -| m.about.since, 0);
                self.noteBlock(g, m.about.since);
                endConvoy(self);
            }
            return true;
        }

        /// A goroutine may be preempted while it holds a lock that knows threads. Then each other
        /// that wants the lock blocks its thread. The holder must not wait until all of them have.
        fn endConvoy(self: *Self) void {
            self.convoy_base = @min(self.convoy_base, self.lost_count);
            if (self.lost_count < self.convoy_base + convoy) return;
            const g = self.preempted.pop() orelse self.low.pop() orelse return;
            self.convoy_base = self.lost_count;
            self.goNext(g);
            self.hog_tick.store(self.tick.raw +% 1, .monotonic);
        }

        /// Takes the P and runs the lane, unless the goroutine came back while this M waited for
        /// the lock: a lock that was not free at once was held by another thread, most likely by
        /// that goroutine's.
        pub fn retake(self: *Self, m: *M, duty: m_mod.Duty, asked: u64) void {
            if (!self.live) return;
            const now = Env.nanotime();
            const waited = now - asked > prompt_lock_ns and duty == .retake;
            if ((waited and now -| m.about.since < self.tunables.retake_threshold_idle_ns.get()) or
                !takeOver(self, m, duty)) return inVain(self);
            if (waited) reinforce(self, now);
            self.schedule(m);
        }

        /// Other threads hold the host's lock and compute. Each of our threads that asks for it
        /// waits its turn, a switch interval or more, and where the goroutine that it then runs
        /// blocks again at once, that was all that goroutines got of it. So some more threads ask,
        /// as many would in a program of threads: when one of them gets the lock and the running
        /// goroutine blocks, it takes the P.
        noinline fn reinforce(self: *Self, now: u64) void {
            self.reinforced_at = now;
            var wanted = @min(self.runq.len, self.tunables.retake_reserves.get()) -| self.reserves;
            while (wanted > 0) : (wanted -= 1) {
                if (planted == .counts_the_refused) self.reserves += 1;
                self.startM(.reserve, .{}) catch return;
                if (planted != .counts_the_refused) self.reserves += 1;
            }
        }

        /// With the host's lock, which the running goroutine has let go: because it blocks, as
        /// sysmon has seen, or it has just begun; otherwise it was asked to.
        pub fn reserve(self: *Self, m: *M) void {
            if (planted == .comes_too_late_uncounted and !self.live) return;
            self.reserves -= 1;
            if (!self.live) return;
            const old = self.owner.load(.monotonic) orelse return;
            const now = Env.nanotime();
            const tick = self.tick.raw;
            const seen = self.blocked_tick.load(.acquire) == tick;
            const begun = now -| self.reinforced_at < self.offerInterval() / 2;
            const since = if (seen) self.blocked_since.load(.monotonic) else now;
            m.about = .{ .m = old.id, .tick = tick, .since = since };
            if (!(seen or begun) or
                self.attachment(old) == .attached or !takeOver(self, m, .retake)) return;
            reinforce(self, now);
            self.schedule(m);
        }

        pub fn inVain(self: *Self) void {
            _ = @atomicRmw(u64, &self.counters.retakes_in_vain, .Add, 1, .monotonic);
        }

        /// Gives the P up before a call that is known to block: as Go's entersyscallblock.
        pub fn giveUpP(self: *Self, g: *G) void {
            self.noteBlock(g, Env.nanotime());
            lose(self, g);
            self.owner.store(null, .release);
            _ = self.bumpTick();
            self.wakeP();
        }
    };
}
