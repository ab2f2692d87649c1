//! The Ms of a serial lane: threads that rest on the idle list, are sent on errands, and end.
//!
//! The idle list has a lock of its own, since sysmon sends Ms without the host's. The thread that
//! takes an M off it gives it a duty and wakes it; the M that a time-out or a signal wakes first
//! asks whether it is still there.
//!
//! An M is on the list before it lets the host's lock go: otherwise a thread that needs one in
//! between starts another in vain, or finds none at all at `max_threads`. There all Ms may be on
//! errands, too, some without the lock. If no M can be sent to run the lane, a runner is owed: the
//! next M that comes home becomes it at once. In the place of one that ends another may be started.
const std = @import("std");
const os = @import("../os/os.zig");
const m_mod = @import("m.zig");
const sysmon = @import("sysmon.zig");

const Allocator = std.mem.Allocator;

/// Goroutines that waited for a thread this long are worth a word.
const long_debt_ns = std.time.ns_per_s;
/// How long an M without work keeps its thread.
const m_idle_ns = 10 * std.time.ns_per_s;

/// The part of a Lane that is about its threads. For `Env` see ending.zig.
pub fn Threads(comptime Lane: type, comptime Host: type, comptime Env: type) type {
    return struct {
        const Self = Lane;
        const G = Env.G;
        const M = Env.M;
        const planted = if (@hasDecl(Env, "planted")) Env.planted else .none;
        const Error = Lane.Error;

        /// Ends the threads that wait for work and joins them.
        pub fn quitIdle(self: *Self) void {
            while (true) {
                const m = popIdle(self) orelse break;
                awaitOthers(m);
                const thread = m.thread.?;
                wakeM(m, .quit, .{});
                thread.join();
                self.gpa.destroy(m);
            }
        }

        pub fn adoptThread(self: *Self, m: *M) Allocator.Error!void {
            const memory = try self.gpa.alloc(u8, Env.FaultStack.size);
            m.fault.enter(memory);
            Env.setCurrent(m);
            Host.enterThread(m);
        }

        /// Before its thread is started: from here on the run does not end without it.
        pub fn enlistM(self: *Self, m: *M) void {
            self.m_lock.lock();
            defer self.m_lock.unlock();
            m.id = self.next_m_id;
            m.generation = self.generation;
            self.next_m_id += 1;
            m.next_all = self.all_m;
            self.all_m = m;
        }

        /// The run and the M have nothing to do with each other any more.
        fn delistM(self: *Self, m: *M) void {
            self.m_lock.lock();
            defer if (planted != .wakes_unlocked) self.m_lock.unlock();
            if (unlinkM(self, m)) {
                _ = self.counters.threads.fetchSub(1, .release);
                if (m.dismissed) self.dismissed -= 1;
            }
            if (planted == .wakes_unlocked) self.m_lock.unlock();
            // `stop` may wait for this one, and takes the lock before it goes on.
            if (!self.live) self.m0.note.wake();
        }

        /// Undoes enlistM, except for the count, which the caller undoes.
        pub fn unlistM(self: *Self, m: *M) void {
            self.m_lock.lock();
            defer self.m_lock.unlock();
            _ = unlinkM(self, m);
        }

        /// False in the child of a fork, where it is in no list.
        fn unlinkM(self: *Self, m: *M) bool {
            var link = &self.all_m;
            while (link.*) |it| : (link = &it.next_all) {
                if (it != m) continue;
                link.* = m.next_all;
                return true;
            }
            return false;
        }

        /// Undoes adoptThread, on the same thread. sysmon never sees the M again after it.
        pub fn leaveThread(self: *Self, m: *M) void {
            Host.leaveThread(m);
            m.fault.leave();
            self.gpa.free(m.fault.memory);
            if (!m.stray or planted == .stray_signs_off) delistM(self, m);
        }

        fn popIdle(self: *Self) ?*M {
            self.m_lock.lock();
            defer self.m_lock.unlock();
            return takeIdle(self);
        }

        /// With `m_lock`.
        fn takeIdle(self: *Self) ?*M {
            const m = self.idle_m orelse return null;
            self.idle_m = m.next_idle;
            m.next_idle = null;
            _ = self.idle_count.fetchSub(1, .monotonic);
            return m;
        }

        pub fn wakeM(m: *M, duty: m_mod.Duty, about: m_mod.About) void {
            m.duty = duty;
            m.about = about;
            m.note.wake();
        }

        /// Has an M take the free P, if none is on its way. Where no thread can be got, an M that
        /// comes back from a blocking call takes the P, or one that comes home from an errand.
        pub fn sendRunner(self: *Self) void {
            if (self.runner_sent) return;
            self.runner_sent = true;
            while (true) {
                startM(self, .run, .{}) catch |e| {
                    if (!oweRunner(self, e)) continue;
                    self.runner_sent = false;
                };
                return;
            }
        }

        /// False if there is a thread by now.
        fn oweRunner(self: *Self, e: Error) bool {
            self.m_lock.lock();
            defer self.m_lock.unlock();
            if (self.idle_m != null or (e == error.ThreadLimit and hasRoom(self))) return false;
            @atomicStore(bool, &self.runner_owed, planted != .owes_nothing, .monotonic);
            return true;
        }

        /// Of sysmon, which found no M to send or did not look for one: says, once a run, that all
        /// threads block while goroutines could run.
        pub fn watchDebt(self: *Self, now: u64, refused: bool) void {
            const owed = refused or (@atomicLoad(bool, &self.runner_owed, .monotonic) and
                self.owner.load(.monotonic) == null);
            if (!owed or !self.othersRunnable()) {
                self.owed_since = 0;
            } else if (self.owed_since == 0) {
                self.owed_since = now;
                _ = self.counters.threads_awaited.fetchAdd(1, .monotonic);
            } else if (now -| self.owed_since > long_debt_ns and !self.debt_said) {
                self.debt_said = true;
                var buffer: [256]u8 = undefined;
                os.writeStderr(std.fmt.bufPrint(
                    &buffer,
                    "golibx: goroutines wait for a thread: all {d} block in C code, and " ++
                        "[runtime] max_threads allows no more; golibx dump {d} shows where\n",
                    .{ self.options.max_threads, os.processId() },
                ) catch unreachable);
            }
        }

        /// Gives an idle or new M something to do. Needs no lock: sysmon calls it too.
        pub fn startM(self: *Self, duty: m_mod.Duty, about: m_mod.About) Error!void {
            if (popIdle(self)) |m| return wakeM(m, duty, about);
            _ = try newM(self, .{ .duty = duty, .about = about, .note = .{ .word = .init(1) } });
        }

        /// An M that waits for the caller to give it a goroutine, and to wake it.
        pub fn obtainM(self: *Self) Error!*M {
            return popIdle(self) orelse newM(self, .{});
        }

        fn newM(self: *Self, first: M) Error!*M {
            try countM(self);
            errdefer _ = self.counters.threads.fetchSub(1, .release);
            const m = try self.gpa.create(M);
            errdefer self.gpa.destroy(m);
            m.* = first;
            enlistM(self, m);
            errdefer unlistM(self, m);
            // It is in the list: shareMask waits for it if this is about to change.
            self.m_lock.lock();
            const mask = self.signal_mask;
            self.m_lock.unlock();
            m.thread = try Env.spawn(threadMain, m, .{ .signals = .{ .mask = mask } });
            m.known.store(true, .release);
            return m;
        }

        /// Before there is one, lest two at once find room for one.
        fn countM(self: *Self) Error!void {
            self.m_lock.lock();
            defer self.m_lock.unlock();
            if (!hasRoom(self)) return error.ThreadLimit;
            _ = self.counters.threads.fetchAdd(1, .monotonic);
        }

        /// With `m_lock`.
        fn hasRoom(self: *Self) bool {
            return self.counters.threads.load(.monotonic) -
                self.dismissed < self.options.max_threads;
        }

        fn threadMain(raw: ?*anyopaque) void {
            const m: *M = @ptrCast(@alignCast(raw.?));
            const self = Host.lane();
            adoptThread(self, m) catch os.fatal("no memory for a thread", .{});
            while (serve(self, m)) {}
        }

        /// One duty of an M on the idle list, which is off it afterwards if it is the main one and
        /// on it again otherwise. False when the thread has to end; the M is gone then.
        pub fn serve(self: *Self, m: *M) bool {
            const rested = m.rest(if (m.main or m.locked_g != null) null else m_idle_ns);
            if (m.locked_g != null) return serveLockedM(self, m, rested);
            // The thread that took it off the idle list is about to wake it.
            if (rested == .timeout) return if (retireToEnd(self, m))
                endThread(self, m)
            else
                serve(self, m);
            if (rested == .interrupted) {
                if (!retire(self, m)) return serve(self, m);
                Host.acquire(m);
                if (self.owns(m)) self.handleSignals(m);
                return finish(self, m, .locked);
            }
            m.note.clear();
            const duty = m.duty;
            m.duty = .none;
            switch (duty) {
                // Only the main M is woken without a duty, and while it is on the idle list.
                .none => return if (retire(self, m)) finish(self, m, .unlocked) else serve(self, m),
                .quit => {
                    Host.acquire(m);
                    leaveThread(self, m); // leaves without the lock
                    return false;
                },
                .run => {
                    Host.acquire(m);
                    self.runner_sent = false;
                    if (self.live and self.owner.load(.monotonic) == null) {
                        sysmon.own(self, m);
                        self.schedule(m);
                    }
                },
                .retake, .hand_off => {
                    if (duty == .retake and !sysmon.stillBlocked(self, m)) {
                        self.inVain();
                        self.sysmon.helpers.store(0, .release);
                        return finish(self, m, .unlocked);
                    }
                    const asked = Env.nanotime();
                    Host.acquire(m);
                    self.sysmon.helpers.store(0, .release);
                    self.retake(m, duty, asked);
                },
                .reserve => {
                    Host.acquire(m);
                    self.reserve(m);
                },
                .preempt => {
                    Host.acquire(m);
                    armPreempt(self, m.about);
                    self.sysmon.helpers.store(0, .release);
                },
            }
            return finish(self, m, .locked);
        }

        fn serveLockedM(self: *Self, m: *M, rested: os.Wake) bool {
            if (rested == .timeout) return serve(self, m);
            if (rested == .woken) m.note.clear();
            Host.acquire(m);
            if (rested == .interrupted and self.owns(m)) self.handleSignals(m);
            if (m.main and self.signal_for_main) {
                self.signal_for_main = false;
                Host.onSignal();
            }
            // With its goroutine, unless a signal woke it.
            if (self.owns(m)) self.schedule(m);
            return finish(self, m, .locked);
        }

        /// After a duty, with the host's lock or without. False if the thread has ended.
        fn finish(self: *Self, m: *M, lock: enum { locked, unlocked }) bool {
            if (m.main) {
                if (lock == .locked) Host.release(m);
                if (self.signal_for_main) {
                    Host.acquire(m);
                    self.signal_for_main = false;
                    Host.onSignal();
                    Host.release(m);
                }
                return true;
            }
            const stays = comeHome(self, m);
            if (lock == .locked) Host.release(m);
            return stays or endThread(self, m);
        }

        /// False if the thread has to end.
        fn comeHome(self: *Self, m: *M) bool {
            // Where the lane ended meanwhile, no other thread will join this one.
            if (!self.owns(m)) return false;
            if (m.ending) {
                dismiss(self, m);
                return false;
            }
            if (m.locked_g == null) pushIdle(self, m);
            return true;
        }

        /// Of an M that ends: another may be started in its place.
        fn dismiss(self: *Self, m: *M) void {
            const owed = count: {
                self.m_lock.lock();
                defer self.m_lock.unlock();
                countOut(self, m);
                defer @atomicStore(bool, &self.runner_owed, false, .monotonic);
                break :count self.runner_owed;
            };
            if (owed) sendRunner(self);
        }

        /// With `m_lock`.
        fn countOut(self: *Self, m: *M) void {
            m.dismissed = true;
            self.dismissed += 1;
        }

        /// A short life may end before the thread that started this one, or woke it last, has
        /// finished with it.
        fn awaitOthers(m: *M) void {
            while (!m.known.load(.acquire) or
                (m.due.load(.acquire) > 0 and planted != .others_unawaited))
                Env.sleepNs(std.time.ns_per_us);
        }

        fn endThread(self: *Self, m: *M) bool {
            awaitOthers(m);
            const thread = m.thread.?;
            Host.acquire(m);
            if (m.left) |g| Host.bury(g);
            leaveThread(self, m); // leaves without the host's lock
            thread.detach();
            self.gpa.destroy(m);
            return false;
        }

        /// Puts a preemption request in the way of the goroutine that sysmon meant, if it is still
        /// where it was.
        fn armPreempt(self: *Self, about: m_mod.About) void {
            const target = find: {
                self.m_lock.lock();
                defer self.m_lock.unlock();
                var it = self.all_m;
                while (it) |m| : (it = m.next_all) {
                    if (m.id == about.m) break :find m;
                }
                return;
            };
            const g = target.curg orelse return;
            if (!self.live or (self.running == g and self.tick.raw != about.tick)) return;
            Host.armPreempt(g);
        }

        /// The thread that runs it; null while none does.
        pub fn threadOf(self: *Self, g: *const G) ?Env.Thread {
            self.m_lock.lock();
            defer self.m_lock.unlock();
            var it = self.all_m;
            while (it) |m| : (it = m.next_all) {
                if (m.curg == g and (m.main or m.known.load(.acquire))) return m.thread;
            }
            return null;
        }

        /// The calling thread has a new mask of signals: so have the others when this returns. With
        /// the host's lock, without which no M ends.
        pub fn shareMask(self: *Self, own: *M, mask: os.SignalMask) void {
            if (os.sameMask(&mask, &self.signal_mask)) return;
            self.mask_turn +%= 1;
            own.mask_turn = self.mask_turn;
            while (!askAll(self, mask)) {
                os.awaitMasks();
                Env.sleepNs(std.time.ns_per_us);
            }
            os.awaitMasks();
        }

        /// From here on the calling thread's mask, which is that of all, is its own.
        pub fn keepMask(self: *Self, own: *M) void {
            if (own.mask_again) setMaskAgain(self, own);
            own.keeps_mask = true;
        }

        /// Of an M when its goroutine comes back from a call.
        pub noinline fn setMaskAgain(self: *Self, m: *M) void {
            m.mask_again = false;
            os.setMask(self.signal_mask);
        }

        /// False if one is not there yet, or there is no room for all.
        fn askAll(self: *Self, mask: os.SignalMask) bool {
            self.m_lock.lock();
            defer self.m_lock.unlock();
            self.signal_mask = mask;
            var all = true;
            var it = self.all_m;
            while (it) |m| : (it = m.next_all) {
                if (m.mask_turn == self.mask_turn or m.keeps_mask) continue;
                m.mask_again = true;
                if ((m.main or m.known.load(.acquire)) and os.askForMask(m.thread.?, mask))
                    m.mask_turn = self.mask_turn
                else
                    all = false;
            }
            return all;
        }

        /// The main M goes first, so that it is the first to be woken. Where a runner is owed, the
        /// M is that.
        pub fn pushIdle(self: *Self, m: *M) void {
            self.m_lock.lock();
            defer self.m_lock.unlock();
            if (self.runner_owed) {
                @atomicStore(bool, &self.runner_owed, false, .monotonic);
                return wakeM(m, .run, .{});
            }
            const head = self.idle_m;
            if (head != null and head.?.main) {
                m.next_idle = head.?.next_idle;
                head.?.next_idle = m;
            } else {
                m.next_idle = head;
                self.idle_m = m;
            }
            _ = self.idle_count.fetchAdd(1, .monotonic);
        }

        pub fn mainIsIdle(self: *Self) bool {
            self.m_lock.lock();
            defer self.m_lock.unlock();
            return self.idle_m == self.m0;
        }

        /// Takes an M off the idle list if it is still there.
        pub fn retire(self: *Self, m: *M) bool {
            self.m_lock.lock();
            defer self.m_lock.unlock();
            return unlinkIdle(self, m);
        }

        /// No runner is owed where an M rests.
        fn retireToEnd(self: *Self, m: *M) bool {
            self.m_lock.lock();
            defer self.m_lock.unlock();
            if (!unlinkIdle(self, m)) return false;
            countOut(self, m);
            return true;
        }

        /// With `m_lock`.
        fn unlinkIdle(self: *Self, m: *M) bool {
            var link = &self.idle_m;
            while (link.*) |it| : (link = &it.next_idle) {
                if (it != m) continue;
                link.* = m.next_idle;
                _ = self.idle_count.fetchSub(1, .monotonic);
                return true;
            }
            return false;
        }

        /// Whether some M that can't be sent now has no goroutine of its own, and so comes home
        /// soon.
        pub fn anyOnErrand(self: *Self) bool {
            self.m_lock.lock();
            defer self.m_lock.unlock();
            var it = self.all_m;
            while (it) |m| : (it = m.next_all) {
                if (m.curg == null and m.locked_g == null and !m.dismissed) return true;
            }
            return false;
        }
    };
}
