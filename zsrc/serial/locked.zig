//! Goroutines that are locked to a thread, of a serial lane: as Go's LockOSThread.
//!
//! Such a goroutine runs on its own M only, and that M runs nothing else. The M that picks it makes
//! the goroutine's own M the owner of the P and wakes that. When the goroutine stops, its M gives
//! the P up and waits, off the list of idle Ms. One that ends while it is locked takes its thread
//! along.
//!
//! The main goroutine, unless it is locked itself, prefers the main thread: that one may run others
//! too.

/// The part of a Lane that is about goroutines with a thread of their own. For `Env` see
/// ending.zig.
pub fn Locked(comptime Lane: type, comptime Host: type, comptime Env: type) type {
    return struct {
        const Self = Lane;
        const G = Env.G;
        const M = Env.M;

        /// Locks the calling goroutine to its thread, once more if it is. The main thread is for
        /// the main goroutine: any other moves to a thread of its own first, unless code of others
        /// that is in the middle of a call may hold something of this one.
        pub fn lockThread(self: *Self, g: *G) Lane.Error!void {
            if (g.lock_count > 0) {
                g.lock_count += 1;
                return;
            }
            const m = g.m.?;
            // Another M has to run the others.
            if (self.locked_count + 1 >= self.options.max_threads) return error.ThreadLimit;
            const moves = m.main and g != self.main_g and !Host.keepsThread(g);
            const own = if (moves) try awaitM(self) else m;
            g.lock_count = 1;
            tie(g, own);
            // From here on no call of it is a plain one, so that `leave` looks.
            g.plain_frame = 0;
            g.near_frame = 0;
            g.deep_frame = 0;
            g.deep = true;
            self.locked_count += 1;
            if (!moves) return;
            g.transition(.running, .runnable);
            reserve(self, own);
            self.switchToG0(g, null);
        }

        /// A thread for the calling goroutine. If all are busy for a moment only, on an errand or
        /// in the poller, that is no reason to refuse.
        fn awaitM(self: *Self) Lane.Error!*M {
            while (true) {
                return self.obtainM() catch |e| {
                    if (e != error.ThreadLimit or !self.anyOnErrand()) return e;
                    if (self.poller != null) Host.pollBreak();
                    self.offerLock();
                    continue;
                };
            }
        }

        /// Undoes one lockThread; false if there was none.
        pub fn unlockThread(self: *Self, g: *G) bool {
            if (g.lock_count == 0) return false;
            g.lock_count -= 1;
            if (g.lock_count > 0) return true;
            untie(self, g);
            self.locked_count -= 1;
            return true;
        }

        pub fn tie(g: *G, m: *M) void {
            g.locked_m = m;
            g.placed = true;
            @atomicStore(?*G, &m.locked_g, g, .monotonic);
        }

        pub fn untie(self: *Self, g: *G) void {
            @atomicStore(?*G, &g.locked_m.?.locked_g, null, .monotonic);
            g.locked_m = null;
            g.placed = g == self.main_g or g.timed;
        }

        /// Whether others may run, on another thread, when a goroutine gives way that keeps its
        /// own. It attends here to what was posted, and to what sysmon asks at every preemption: if
        /// no goroutine can go on after that, to go to another thread and back would cost two of
        /// its turns.
        pub fn othersWait(self: *Self) bool {
            if (self.attention.load(.monotonic)) {
                if (self.options.explore) return true; // where a turn must not be taken twice
                self.attend();
            }
            return self.anyRunnable() or self.wantsG0();
        }

        /// It ends: so does its thread, about which it may have changed what it liked.
        pub fn exitLocked(self: *Self, g: *G) void {
            const own = g.locked_m.?;
            g.lock_count = 0;
            untie(self, g);
            self.locked_count -= 1;
            own.ending = !own.main;
        }

        /// Whether the goroutine, which was picked, has to run on another thread; it is on its way
        /// there then. Or it is held, and runs nowhere yet. Without a lock that is the main one,
        /// which prefers the main thread, where signals interrupt what it waits for. On another
        /// thread it runs only while a goroutine blocks the main one.
        pub noinline fn belongsElsewhere(self: *Self, g: *G) bool {
            if (g.timed) return timedElsewhere(self, g);
            if (g == self.held) {
                self.held_waits = true;
                return true;
            }
            const m = self.owner.load(.monotonic) orelse return false;
            if (g.locked_m) |own| {
                if (own == m) return false;
                reserve(self, own);
                return true;
            }
            // It may also rest with a goroutine that keeps it.
            if (m.main or self.m0.curg != null or self.m0.locked_g != null) {
                if (g == self.main_g) Host.carryMain(m);
                return false;
            }
            self.goNext(g);
            // Which thread had picked it is chance: it is not chosen anew on the other one.
            if (self.options.explore) {
                self.chosen = true;
                self.turn -%= 1;
            }
            sendTo(self, self.m0);
            return true;
        }

        /// Apart, so that the main goroutine's turns do without the registers that it takes. Its
        /// wait ends on the thread that it belongs to.
        noinline fn timedElsewhere(self: *Self, g: *G) bool {
            g.timed = false;
            g.timed = (g == self.main_g or g.locked_m != null) and belongsElsewhere(self, g);
            if (!g.timed) self.noteTurn(g);
            return g.timed;
        }

        /// The goroutine of `own` is in no queue until that runs it.
        fn reserve(self: *Self, own: *M) void {
            own.handed = true;
            sendTo(self, own);
        }

        fn sendTo(self: *Self, m: *M) void {
            self.to_thread = m;
            // A goroutine that is asked for the next one, of whatever M, goes to g0.
            self.attention.store(true, .release);
        }

        /// On g0: gives the P to another thread, for the goroutine that this waits with.
        pub fn passTo(self: *Self, m: *M, own: *M) void {
            own.handed = true;
            self.to_thread = own;
            _ = passP(self, m);
        }

        /// On g0: gives the P to the thread that it was promised to. False if that is this one.
        pub fn passP(self: *Self, m: *M) bool {
            const to = self.to_thread.?;
            self.to_thread = null;
            if (to == m) return false;
            // No other M takes it then. But the main thread may be in a signal handler, which the
            // others need not wait for; in an explored run they do, lest they choose the next
            // goroutine once more.
            const keeps = to.locked_g != null or self.options.explore;
            self.owner.store(if (keeps) to else null, .release);
            m.passed_on = to.locked_g != null;
            if (to.main) self.wakeMain() else m.appoint(to);
            return true;
        }

        /// Of a locked M, or one that ends: others see to the rest.
        pub fn leaveP(self: *Self) void {
            self.owner.store(null, .release);
            self.wakeP();
        }

        /// When the run is over: the threads of goroutines that have not ended do.
        pub fn wakeLocked(self: *Self) void {
            self.m_lock.lock();
            defer self.m_lock.unlock();
            var it = self.all_m;
            while (it) |m| : (it = m.next_all) {
                if (@atomicLoad(?*G, &m.locked_g, .monotonic) != null and !m.main) m.note.wake();
            }
        }
    };
}
