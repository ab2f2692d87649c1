//! The queue of goroutines that wait for one object, first come, first served. The primitives of
//! sync/ are made of it, in both lanes.
//!
//! A waiter lies on the stack of the goroutine that waits. Several parties may want to end a wait:
//! the goroutine that serves it, a deadline, a cancellation. The first to `claim` it decides, and
//! all others pass by. So an object gives something only to a waiter that it has claimed: nothing
//! is given to one that has left, and one that was given something keeps it, whatever else it is
//! told meanwhile.
//!
//! A queue belongs to an object and is touched under that object's lock. A waiter that was taken
//! out is woken when the lock has been let go: from then on nothing of the object is touched, since
//! a goroutine that was woken may free it. Once a waiter was claimed, only its claimer may touch
//! it, until the wake-up.
//!
//! `Rt` is what it runs on. In the serial lane (serial/waiting.zig) the host's lock is held all the
//! time: its `Env.Lock` has no size and no code, and a claim is a store. In the parallel lane
//! (parallel/switching.zig) the lock is real and a claim is a compare-and-swap. Models have others.
//!  - `Env`: `Lock`, `Atomic`;
//!  - `Run` and `run()`: the number of the present run. A run that ends may leave goroutines
//!    behind, and a fork all of them: they never go on. A queue forgets those of another run than
//!    the present one, without touching their stacks. Where no run leaves any behind it is a u0;
//!  - `Me`: the goroutine that calls; `Who`: the one that waits, as others know it;
//!  - `claim(who, wake, waiter)`: true for the first, whose `wake` and `waiter` count; `isClaimed`;
//!  - `wake(who)`, `wakeLast(who)`: makes ready, to run next or after the others. `last_is_next`:
//!    both make it the next one, before those that were woken a moment ago;
//!  - `Blocker`: a wait. After `init`, which comes with the lock and when nothing can be done at
//!    once, `block` has to follow: it calls `unlock` as soon as the caller can be woken.
const list = @import("list.zig");
const wait_mod = @import("wait.zig");
const Wake = wait_mod.Wake;
const WaitReason = wait_mod.WaitReason;

/// Where a waiter queues.
pub const Place = enum { front, end };

/// What a waiter has beside: what it asks for, what it gives.
pub fn Waiters(comptime Rt: type, comptime Data: type) type {
    return struct {
        const Self = @This();
        const Lock = Rt.Env.Lock;
        const planted = if (@hasDecl(Rt.Env, "planted")) Rt.Env.planted else .none;

        pub const Waiter = struct {
            who: Rt.Who = undefined,
            data: Data = undefined,
            /// The run in which it was queued.
            run: Rt.Run = 0,
            /// `claimAll` has come across it, though it may have left before.
            given: bool = false,
            prev: ?*Waiter = null,
            next: ?*Waiter = null,
        };
        pub const List = list.List(Waiter);

        list: List = .{},
        /// The run whose waiters these are.
        run: Rt.Run = 0,

        pub inline fn isEmpty(q: *const Self) bool {
            return q.list.head == null;
        }

        /// Forgets waiters of a run that has ended; whether it was another one.
        pub inline fn enter(q: *Self) bool {
            const now = Rt.run();
            if (q.run == now) return false;
            q.* = .{ .run = now };
            return true;
        }

        pub inline fn push(q: *Self, w: *Waiter) void {
            _ = q.enter();
            w.run = q.run;
            q.list.push(w);
        }

        pub inline fn pushFront(q: *Self, w: *Waiter) void {
            _ = q.enter();
            w.run = q.run;
            q.list.pushFront(w);
        }

        /// Does nothing if it has been taken out before; nor for a thread that returns when the run
        /// is over, and the queue another's.
        pub inline fn remove(q: *Self, w: *Waiter) void {
            if (w.run == Rt.run()) q.list.remove(w);
        }

        /// The first that can still be given something; it may be claimed by others at any moment.
        pub inline fn first(q: *Self) ?*Waiter {
            _ = q.enter();
            while (q.list.head) |w| {
                if (!Rt.isClaimed(w.who)) return w;
                q.list.remove(w); // it has left already
            }
            return null;
        }

        /// Takes out the first that can still be woken, claimed: the caller serves and wakes it.
        pub inline fn take(q: *Self, wake: Wake) ?*Waiter {
            _ = q.enter();
            while (q.list.pop()) |w| {
                if (Rt.claim(w.who, wake, w) or planted == .serves_the_late) return w;
            }
            return null;
        }

        /// Takes out this one; whether it was claimed.
        pub inline fn takeOne(q: *Self, w: *Waiter, wake: Wake) bool {
            q.list.remove(w);
            return Rt.claim(w.who, wake, w) or planted == .serves_the_late;
        }

        /// Has `wakeAll` wake one that was taken out.
        pub inline fn collect(woken: *List, w: *Waiter) void {
            if (Rt.last_is_next) woken.pushFront(w) else woken.push(w);
        }

        /// Takes all out and adds to `woken` those that were claimed, for `wakeAll`.
        pub fn claimAll(q: *Self, wake: Wake, woken: *List) void {
            _ = q.enter();
            while (q.list.head) |w| {
                w.given = wake == .ready;
                if (q.takeOne(w, wake)) collect(woken, w);
            }
        }

        /// Without the lock: in the order in which they run.
        pub fn wakeAll(woken: List) void {
            var it = woken.head;
            while (it) |w| {
                it = w.next;
                Rt.wakeLast(w.who);
            }
        }

        /// With the lock, which it lets go: ends all waits.
        pub fn end(q: *Self, lock: *Lock, wake: Wake) void {
            var woken: List = .{};
            q.claimAll(wake, &woken);
            if (planted != .unlocks_after_it_wakes) lock.unlock();
            wakeAll(woken);
            if (planted == .unlocks_after_it_wakes) lock.unlock();
        }

        /// Waits behind all others. With the lock, which it lets go.
        pub inline fn wait(
            q: *Self,
            lock: *Lock,
            w: *Waiter,
            me: Rt.Me,
            reason: WaitReason,
            deadline: ?u64,
        ) Wake {
            return q.waitAt(.end, lock, w, me, reason, deadline);
        }

        pub inline fn waitAt(
            q: *Self,
            place: Place,
            lock: *Lock,
            w: *Waiter,
            me: Rt.Me,
            reason: WaitReason,
            deadline: ?u64,
        ) Wake {
            var b: Rt.Blocker = undefined;
            b.init(me, deadline != null);
            w.who = b.who();
            if (place == .front) q.pushFront(w) else q.push(w);
            return q.ended(lock, w, b.block(reason, deadline, unlockIt(Lock), lock));
        }

        /// As `wait` without a deadline, for what is called so often that the wait is worth to be
        /// among the instructions of each place that it is called from.
        pub inline fn waitHere(
            q: *Self,
            lock: *Lock,
            w: *Waiter,
            me: Rt.Me,
            reason: WaitReason,
        ) Wake {
            var b: Rt.Blocker = undefined;
            b.init(me, false);
            w.who = b.who();
            q.push(w);
            return q.ended(lock, w, b.blockHere(reason, unlockIt(Lock), lock));
        }

        inline fn ended(q: *Self, lock: *Lock, w: *Waiter, wake: Wake) Wake {
            if (wake == .ready or wake == .closed) return wake;
            lock.lock();
            q.remove(w);
            lock.unlock();
            return wake;
        }
    };
}

/// For `block`: lets go of a lock. It takes no wait back.
pub fn unlockIt(comptime Lock: type) fn (*anyopaque) bool {
    return struct {
        fn unlock(raw: *anyopaque) bool {
            const l: *Lock = @ptrCast(@alignCast(raw));
            l.unlock();
            return true;
        }
    }.unlock;
}
