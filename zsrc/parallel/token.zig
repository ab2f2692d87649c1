//! The token of a goroutine: what golibx_park() waits for and golibx_ready() gives. It holds at
//! most one wake-up, so that a `ready` that comes before its `park` is not lost.
//!
//! `value` is nothing, that wake-up, or the wait of the goroutine, which lies on its stack. The
//! code that ends the wait, `ready` or a deadline, claims it (wait.zig): a `ready` that comes too
//! late for that leaves its wake-up behind, and `end` takes it.
const wait_mod = @import("wait.zig");

pub fn Token(comptime Env: type) type {
    return struct {
        const Self = @This();
        const Wait = wait_mod.Wait(Env);
        const planted = if (@hasDecl(Env, "planted")) Env.planted else .none;

        lock: Env.Lock = .{},
        /// Under the lock.
        value: usize = none,

        const none = 0;
        const woken = 1;

        /// Of its goroutine: takes the wake-up if there is one. If not, the token waits with `w`,
        /// and its lock is held, unless `w` is null.
        pub fn begin(t: *Self, w: ?*Wait) enum { woken, would_block, waiting } {
            t.lock.lock();
            if (t.value == none) {
                if (w) |wait| {
                    t.value = @intFromPtr(wait);
                    return .waiting;
                }
            }
            defer t.lock.unlock();
            if (t.value == none) return .would_block;
            t.value = none;
            return .woken;
        }

        /// After a wait that its deadline ended: whether the goroutine was woken after that.
        pub fn end(t: *Self) bool {
            t.lock.lock();
            defer t.lock.unlock();
            const late = t.value == woken;
            t.value = none;
            return late;
        }

        /// From any thread. Returns the wait to wake, if the goroutine waits.
        pub fn ready(t: *Self) ?*Wait {
            t.lock.lock();
            defer t.lock.unlock();
            if (t.value > woken) {
                const wait: *Wait = @ptrFromInt(t.value);
                if (wait.claim(.ready)) {
                    t.value = none;
                    return wait;
                }
                if (planted == .late_wakeup_lost) return null;
            }
            t.value = woken;
            return null;
        }
    };
}
