//! RWMutex: many readers or one writer, as Go's. Everything here needs the lane's lock.
//!
//! A writer that waits keeps new readers out, so that readers cannot starve it; a writer that
//! unlocks lets in all readers that wait, before the next writer, so that writers cannot starve
//! them. A waiter is given the lock, in order, and owns it when it wakes.
const Wake = @import("../core/wait.zig").Wake;
const waiters = @import("../core/waiters.zig");
const Waiters = waiters.Waiters;
const Place = waiters.Place;

pub fn RWMutex(comptime Rt: type) type {
    return struct {
        const Self = @This();
        const Queue = Waiters(Rt, void);

        writing: bool = false,
        readers: u64 = 0,
        waiting_writers: Queue = .{},
        waiting_readers: Queue = .{},

        pub inline fn tryLock(m: *Self) bool {
            if (m.writing or m.readers != 0) return false;
            m.writing = true;
            return true;
        }

        pub inline fn tryRLock(m: *Self) bool {
            if (m.writing) return false;
            if (!m.waiting_writers.isEmpty() and m.waiting_writers.first() != null) return false;
            m.readers += 1;
            return true;
        }

        pub inline fn unlock(m: *Self) error{Unlocked}!void {
            if (!m.writing) return error.Unlocked;
            m.writing = false;
            if (!m.waiting_readers.isEmpty()) m.admitReaders();
            if (m.readers == 0) m.admitWriter();
        }

        pub inline fn rUnlock(m: *Self) error{Unlocked}!void {
            if (m.readers == 0) return error.Unlocked;
            m.readers -= 1;
            if (m.readers == 0) m.admitWriter();
        }

        fn admitReaders(m: *Self) void {
            while (m.waiting_readers.take(.ready)) |w| {
                m.readers += 1;
                Rt.wakeLast(w.who);
            }
        }

        inline fn admitWriter(m: *Self) void {
            if (m.waiting_writers.isEmpty()) return;
            const w = m.waiting_writers.take(.ready) orelse return m.admitReaders();
            m.writing = true;
            Rt.wake(w.who);
        }

        /// Parks until the lock is the caller's. After `tryLock` failed, with nothing in between.
        /// One that was interrupted and comes back waits at the front.
        pub fn lockWait(m: *Self, at: Place, me: Rt.Me, deadline: ?u64) Wake {
            var w: Queue.Waiter = .{};
            const wake = m.waiting_writers.waitAt(at, &Rt.no_lock, &w, me, .rwmutex_lock, deadline);
            if (wake != .ready) m.serveOthers();
            return wake;
        }

        /// A writer that kept readers out may have left.
        pub fn serveOthers(m: *Self) void {
            if (!m.writing and m.waiting_writers.first() == null) m.admitReaders();
        }

        /// As lockWait, after `tryRLock`.
        pub fn rLockWait(m: *Self, at: Place, me: Rt.Me, deadline: ?u64) Wake {
            var w: Queue.Waiter = .{};
            return m.waiting_readers.waitAt(at, &Rt.no_lock, &w, me, .rwmutex_rlock, deadline);
        }
    };
}
