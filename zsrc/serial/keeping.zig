//! Goroutines that keep their thread while they are switched out, of a serial lane.
//!
//! Foreign code that called back into the goroutine's code may hold something of its thread: a
//! thread-local, a lock that knows its owner. The host tells whether such code is in the middle of
//! a call (Host.keepsThread). Then the thread is the goroutine's until it goes on, as if it were
//! locked to it: the M sleeps with its goroutine, and the P goes to another M, the heir, which is
//! found before, so that goroutines that wait for the P never wait for a thread that can't be got.
//! If there is no heir, the goroutine goes on on any thread, and is counted.
//!
//! Most calls to the runtime come straight from the goroutine's own code, and must not pay. A
//! goroutine's outermost loop stands at one place of its stack, so that all calls that come from it
//! have the same frame: where that is the frame that was looked at once (G.plain_frame), nothing
//! lies between. Lane.here compares.

/// The part of a Lane that is about threads that wait with their goroutine. For `Env` see
/// ending.zig.
pub fn Keeping(comptime Lane: type, comptime Host: type, comptime Env: type) type {
    return struct {
        const Self = Lane;
        const G = Env.G;
        const M = Env.M;
        const planted = if (@hasDecl(Env, "planted")) Env.planted else .none;
        const locked = @import("locked.zig").Locked(Lane, Host, Env);

        /// Whether the calling goroutine goes on only on the thread that it is on.
        pub inline fn keepsThread(_: *Self, g: *G) bool {
            return g.locked_m != null or (g.deep and Host.keepsThread(g));
        }

        /// Before a goroutine that has the P is switched out. Undone by freeThread, when it is
        /// back; nothing to do for one that is locked to its thread. False if there is no thread
        /// for the others.
        pub fn keepThread(self: *Self, g: *G) bool {
            if (g.locked_m != null) return true;
            const m = g.m.?;
            m.heir = self.obtainM() catch {
                self.counters.threads_not_kept += 1;
                return false;
            };
            self.counters.threads_kept += 1;
            locked.tie(g, m);
            return true;
        }

        /// As keepThread, of one without the P.
        pub fn stayOnThread(self: *Self, g: *G) void {
            if (!keepsThread(self, g) or g.locked_m != null) return;
            self.counters.threads_kept += 1;
            locked.tie(g, g.m.?);
        }

        /// The goroutine is back.
        pub inline fn freeThread(self: *Self, g: *G) void {
            if (g.locked_m != null and g.lock_count == 0) locked.untie(self, g);
        }

        /// On g0: the P goes to the heir, or to the M that is about to have it anyway.
        pub fn bequeath(self: *Self, m: *M) void {
            const heir = m.heir.?;
            m.heir = null;
            // One that keeps its thread, too, need not be sent for by the heir.
            if (self.takeTied(m)) |next| {
                if (planted != .heir_forgotten) self.pushIdle(heir);
                return locked.passTo(self, m, next.locked_m.?);
            }
            self.owner.store(null, .release);
            if (self.poller != null or self.runner_sent) {
                self.pushIdle(heir);
                if (self.poller == null) return;
                // As long as nothing can run, the one in the poller may stay there.
                if (self.anyRunnable() or
                    self.wantsG0() or self.main_done or !Host.inbox.isEmpty() or
                    self.timers.earliest.load(.monotonic) < self.poller_deadline) Host.pollBreak();
                return;
            }
            self.runner_sent = true;
            // As wakeM, later.
            heir.duty = .run;
            heir.about = .{};
            m.appoint(heir);
        }
    };
}
