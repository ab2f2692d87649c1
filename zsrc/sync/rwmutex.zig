//! RWMutex: many readers or one writer, as Go's. Everything here needs the lane's lock.
//!
//! A writer that waits keeps new readers out, so that readers cannot starve it; a writer that
//! unlocks lets in all readers that wait, before the next writer, so that writers cannot starve
//! them. Whoever waits is given the lock, in order, and finds it its own when it wakes.
const g_mod = @import("../sched/g.zig");
const Waiters = @import("waiters.zig").Waiters;
const G = g_mod.G;

pub fn RWMutex(comptime Lane: type) type {
    return struct {
        const Self = @This();
        const Queue = Waiters(Lane);

        writing: bool = false,
        readers: u64 = 0,
        waiting_writers: Queue = .{},
        waiting_readers: Queue = .{},

        pub inline fn tryLock(m: *Self) bool {
            if (m.writing or m.readers != 0) return false;
            m.writing = true;
            return true;
        }

        pub inline fn tryRLock(m: *Self, lane: *Lane) bool {
            if (m.writing) return false;
            if (!m.waiting_writers.isEmpty() and m.waiting_writers.first(lane) != null) return false;
            m.readers += 1;
            return true;
        }

        pub inline fn unlock(m: *Self, lane: *Lane) error{Unlocked}!void {
            if (!m.writing) return error.Unlocked;
            m.writing = false;
            if (!m.waiting_readers.isEmpty()) m.admitReaders(lane);
            if (m.readers == 0) m.admitWriter(lane);
        }

        pub inline fn rUnlock(m: *Self, lane: *Lane) error{Unlocked}!void {
            if (m.readers == 0) return error.Unlocked;
            m.readers -= 1;
            if (m.readers == 0) m.admitWriter(lane);
        }

        fn admitReaders(m: *Self, lane: *Lane) void {
            while (m.waiting_readers.take(lane)) |w| {
                m.readers += 1;
                lane.readyLast(w.g);
            }
        }

        inline fn admitWriter(m: *Self, lane: *Lane) void {
            if (m.waiting_writers.isEmpty()) return;
            const w = m.waiting_writers.take(lane) orelse return m.admitReaders(lane);
            m.writing = true;
            lane.ready(w.g);
        }

        /// Parks until the lock is the caller's. After `tryLock` failed, with nothing in between.
        pub fn lockWait(m: *Self, lane: *Lane, g: *G, deadline: ?u64) g_mod.Wake {
            var w: Queue.Waiter = .{ .g = g };
            const wake = m.waiting_writers.wait(lane, &w, .rwmutex_lock, deadline);
            // The writer that kept readers out has left.
            if (!w.given and !m.writing and m.waiting_writers.first(lane) == null)
                m.admitReaders(lane);
            return wake;
        }

        /// As lockWait, after `tryRLock`.
        pub fn rLockWait(m: *Self, lane: *Lane, g: *G, deadline: ?u64) g_mod.Wake {
            var w: Queue.Waiter = .{ .g = g };
            return m.waiting_readers.wait(lane, &w, .rwmutex_rlock, deadline);
        }
    };
}
