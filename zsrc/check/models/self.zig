//! The explorer's own test: algorithms whose behaviour is known.
const check = @import("../explorer.zig");

/// Mutual exclusion of two threads. Without the order of a thread's store and its following load of
/// the other's flag, as where stores are buffered, both enter.
pub fn Peterson(comptime Sim: type) type {
    return struct {
        flags: [2]Sim.Atomic(bool) = @splat(.init(false)),
        turn: Sim.Atomic(u32) = .init(0),
        inside: Sim.Atomic(u32) = .init(0),
        count: u32 = 0,

        const Self = @This();
        pub const threads = .{ .{ "zero", zero }, .{ "one", one } };

        fn zero(m: *Self) void {
            m.enter(0);
        }

        fn one(m: *Self) void {
            m.enter(1);
        }

        fn enter(m: *Self, comptime me: u1) void {
            const other = 1 - me;
            const order = if (Sim.planted == .buffered_stores) .release else .seq_cst;
            m.flags[me].store(true, order);
            if (Sim.planted != .no_turn) m.turn.store(other, order);
            while (m.flags[other].load(.acquire)) {
                if (Sim.planted == .no_turn) return;
                if (m.turn.load(.acquire) != other) break;
                Sim.spin();
            }
            check.expect(m.inside.fetchAdd(1, .monotonic) == 0, "two are inside");
            if (Sim.planted != .buffered_stores) Sim.writes(&m.count);
            m.count += 1;
            _ = m.inside.fetchSub(1, .monotonic);
            m.flags[me].store(false, .release);
        }

        pub fn end(m: *Self) void {
            check.expect(m.count == 2, "each was inside once");
        }
    };
}

/// A lock made of a flag that is looked at, then set.
pub fn FlagLock(comptime Sim: type) type {
    return struct {
        flag: Sim.Atomic(u32) = .init(0),
        count: u32 = 0,

        const Self = @This();
        pub const threads = .{ .{ "a", enter }, .{ "b", enter }, .{ "c", enter } };

        fn enter(m: *Self) void {
            if (Sim.planted == .look_then_set) {
                while (m.flag.load(.acquire) != 0) Sim.spin();
                m.flag.store(1, .seq_cst);
            } else while (m.flag.cmpxchgWeak(0, 1, .acquire, .monotonic) != null) Sim.spin();
            Sim.writes(&m.count);
            m.count += 1;
            m.flag.store(0, if (Sim.planted == .opens_relaxed) .monotonic else .release);
        }

        pub fn end(m: *Self) void {
            check.expect(m.count == 3, "each was inside once");
        }
    };
}

/// A consumer that sleeps on a note when there is nothing to do.
pub fn NoteHandoff(comptime Sim: type) type {
    return struct {
        work: Sim.Atomic(u32) = .init(0),
        note: Sim.Note = .{},

        const Self = @This();
        const total = 2;
        pub const threads = .{ .{ "producer", produce }, .{ "consumer", consume } };

        fn produce(m: *Self) void {
            for (0..total) |_| {
                _ = m.work.fetchAdd(1, .release);
                m.note.wake();
            }
        }

        fn consume(m: *Self) void {
            var done: u32 = 0;
            while (done < total) {
                if (Sim.planted != .clear_after_look) m.note.clear();
                const found = m.work.swap(0, .acquire);
                done += found;
                if (found > 0) continue;
                if (Sim.planted == .clear_after_look) m.note.clear();
                const wake = m.note.sleep(if (Sim.planted == .time_out) 5 else null);
                if (Sim.planted == .time_out) check.expect(wake == .woken, "woken in time");
            }
        }
    };
}

/// Two threads that each take two locks.
pub fn TwoLocks(comptime Sim: type) type {
    return struct {
        first: Sim.Lock = .{},
        second: Sim.Lock = .{},
        value: u32 = 0,

        const Self = @This();
        pub const threads = .{ .{ "straight", straight }, .{ "maybe_crossed", maybeCrossed } };

        fn straight(m: *Self) void {
            m.both(&m.first, &m.second);
        }

        fn maybeCrossed(m: *Self) void {
            const crossed = Sim.planted == .crossed;
            m.both(if (crossed) &m.second else &m.first, if (crossed) &m.first else &m.second);
        }

        fn both(m: *Self, a: *Sim.Lock, b: *Sim.Lock) void {
            a.lock();
            b.lock();
            Sim.writes(&m.value);
            m.value += 1;
            b.unlock();
            a.unlock();
        }

        pub fn end(m: *Self) void {
            check.expect(m.value == 2, "each was inside once");
        }
    };
}

/// A waiter that parks, threads made on the way, a choice and the clock.
pub fn Parking(comptime Sim: type) type {
    return struct {
        lock: Sim.Lock = .{},
        waiter: ?u32 = null,
        values: u32 = 0,

        const Self = @This();
        pub const threads = .{.{ "parent", parent }};

        fn parent(m: *Self) void {
            _ = Sim.spawn("child", child, m);
            m.lock.lock();
            if (m.values == 0) {
                m.waiter = Sim.self();
                m.lock.unlock();
                Sim.park();
                m.lock.lock();
            } else if (Sim.planted == .always_parks) {
                m.lock.unlock();
                Sim.park();
                m.lock.lock();
            }
            check.expect(m.values == 1, "the child came first");
            m.lock.unlock();
        }

        fn child(m: *Self) void {
            if (Sim.choose(3) == 2) Sim.advance(10);
            m.lock.lock();
            m.values += 1;
            const waiter = m.waiter;
            m.lock.unlock();
            if (waiter) |w| Sim.unpark(w);
            if (Sim.planted == .late_is_wrong) check.expect(Sim.nanotime() == 1, "it is early");
        }
    };
}
