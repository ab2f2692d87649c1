//! What a timer's channel is: something to receive from when its time has come, once or at
//! intervals.
//!
//! As since Go 1.23, the channel has no buffer and nothing is sent to it. A goroutine that receives
//! looks whether the time has come. There is a timer in the lane's heap only while a goroutine
//! waits. So a stop or a reset leaves no stale value behind, a slow receiver misses ticks instead
//! of getting them late, and a channel that the program has forgotten is garbage like any other
//! object.
//!
//! All of it needs the lane's lock. The value is the time that it was due at, in monotonic ns.
const std = @import("std");
const timer_mod = @import("../serial/timer.zig");
const Waiters = @import("../core/waiters.zig").Waiters;
const Timer = timer_mod.Timer;

pub fn TimeChan(comptime Lane: type) type {
    return struct {
        const Self = @This();
        const Rt = @import("../serial/waiting.zig").Waiting(Lane);
        const Queue = Waiters(Rt, u64);
        pub const W = Queue.Waiter;
        /// Later than this never comes.
        pub const never = timer_mod.Heap.never;

        /// Its `when` is the time; it is in the heap while a goroutine waits.
        timer: Timer = .{},
        /// Zero: once.
        period_ns: u64 = 0,
        receivers: Queue = .{},
        /// How many of the program's own goroutines wait.
        user_waiters: u32 = 0,
        /// The time has not come yet, or no goroutine has received it yet.
        armed: bool = false,
        /// The timer in the heap counts as hope.
        counted: bool = false,

        /// Receives the time, if it has come and no goroutine waits for it.
        pub fn poll(c: *Self, lane: *Lane) ?u64 {
            if (!c.armed or c.inHeap()) return null;
            const now = lane.now();
            return if (c.timer.when <= now) c.take(now) else null;
        }

        /// Whether `poll` receives.
        pub fn isDue(c: *const Self, lane: *Lane) bool {
            return c.armed and !c.inHeap() and c.timer.when <= lane.now();
        }

        fn take(c: *Self, now: u64) u64 {
            const when = c.timer.when;
            if (c.period_ns == 0) {
                c.armed = false;
            } else c.timer.when = when +| c.period_ns *| (1 + (now - when) / c.period_ns);
            return when;
        }

        /// Forgets those that waited in a run that is over.
        fn enter(c: *Self) void {
            if (!c.receivers.enter()) return;
            c.timer.index = Timer.none;
            c.user_waiters = 0;
            c.counted = false;
        }

        inline fn inHeap(c: *const Self) bool {
            return c.timer.pending() and c.receivers.run == Rt.run();
        }

        /// After `poll` said no, between the lane's `prepare` and `park`. The heap has room for it.
        pub fn enqueue(c: *Self, lane: *Lane, w: *W) void {
            c.enter();
            c.receivers.push(w);
            c.user_waiters += @intFromBool(!w.who.system);
            c.arm(lane) catch unreachable;
        }

        /// For a waiter that was not served.
        pub fn dequeue(c: *Self, lane: *Lane, w: *W) void {
            // A thread may return when the run is over, and the channel another's.
            if (w.run != Rt.run()) return;
            c.receivers.remove(w);
            c.user_waiters -= @intFromBool(!w.who.system);
            if (c.receivers.isEmpty() and c.timer.pending()) lane.removeTimer(&c.timer, false);
            c.count(lane);
        }

        /// Has the timer in the heap if there is a receiver to wake, and counted if that is
        /// the program's.
        fn arm(c: *Self, lane: *Lane) std.mem.Allocator.Error!void {
            const wanted = c.armed and !c.receivers.isEmpty() and c.timer.when != never;
            if (wanted and !c.timer.pending()) {
                c.timer.fire = fire;
                try lane.addTimer(&c.timer, false);
            } else if (!wanted and c.timer.pending()) lane.removeTimer(&c.timer, false);
            c.count(lane);
        }

        fn count(c: *Self, lane: *Lane) void {
            const hope = c.timer.pending() and c.user_waiters > 0;
            if (hope == c.counted) return;
            c.counted = hope;
            if (hope) lane.user_timers += 1 else lane.user_timers -= 1;
        }

        fn fire(t: *Timer) callconv(.c) void {
            const c: *Self = @fieldParentPtr("timer", t);
            const lane = Lane.get();
            c.count(lane);
            var it = c.receivers.list.head;
            while (it) |w| {
                it = w.next;
                if (!Rt.claim(w.who, .ready, w)) continue;
                c.receivers.remove(w);
                c.user_waiters -= @intFromBool(!w.who.system);
                w.data = c.take(lane.now());
                Rt.wakeLast(w.who);
                // The heap has the room that this timer had.
                return c.arm(lane) catch unreachable;
            }
            // All that waited have ended otherwise and are about to leave: the next that receives
            // gets it.
        }

        /// Due at `when` from now on, and every `period_ns` if that is not zero. Returns whether a
        /// time was set that had not been received; it never is now.
        pub fn set(c: *Self, lane: *Lane, when: u64, period_ns: u64) std.mem.Allocator.Error!bool {
            const was = c.stop(lane);
            c.timer.when = when;
            c.period_ns = period_ns;
            c.armed = true;
            if (c.receivers.run == Rt.run()) try c.arm(lane);
            return was;
        }

        /// Returns whether a time was set that had not been received; it never is now.
        pub fn stop(c: *Self, lane: *Lane) bool {
            const was = c.armed;
            c.armed = false;
            if (c.inHeap()) c.arm(lane) catch unreachable;
            return was;
        }
    };
}
