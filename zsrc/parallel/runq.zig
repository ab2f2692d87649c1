//! Run queues: one of fixed size a P, without locks, and one for all Ps under the scheduler's lock.
//!
//! The algorithm of the local queue is Go's (runtime/proc.go: runqput, runqget, runqgrab). The
//! owner is the only one to write `tail` and the slots; `head` moves forward by a CAS of the owner
//! or of a thief. A thief copies the slots before its CAS says that they were its own to take,
//! which is why slots are atomic. `next` is the goroutine that was made ready last: the owner runs
//! it first, a thief takes it only when there is nothing else, and late.
//!
//! T needs a field `next: ?*T`.
const std = @import("std");

pub const Batch = @import("../core/list.zig").Fifo;

/// `capacity` is a power of two; Go's is 256.
pub fn LocalQueue(comptime Env: type, comptime T: type, comptime capacity: u32) type {
    comptime std.debug.assert(std.math.isPowerOfTwo(capacity));
    return struct {
        const Self = @This();
        const planted = if (@hasDecl(Env, "planted")) Env.planted else .none;

        head: Env.Atomic(u32) = .init(0),
        tail: Env.Atomic(u32) = .init(0),
        next: Env.Atomic(?*T) = .init(null),
        slots: [capacity]Env.Atomic(?*T) = @splat(.init(null)),

        /// The owner's. False if the queue is full: see `overflow`.
        pub inline fn push(q: *Self, t: *T) bool {
            // Acquire pairs with the release of a thief's CAS: it has read what we overwrite.
            const head = q.head.load(.acquire);
            const tail = q.tail.load(.monotonic);
            if (tail -% head >= capacity) return false;
            if (planted == .tail_before_slot) q.tail.store(tail +% 1, .release);
            q.slots[tail % capacity].store(t, .monotonic);
            // Release pairs with a thief's acquire of `tail`: the slot is written, and *t.
            q.tail.store(tail +% 1, if (planted == .push_relaxed) .monotonic else .release);
            return true;
        }

        /// The owner's. Makes `t` the next to run; the one that was goes to the end and is returned
        /// if there is no room.
        pub inline fn pushNext(q: *Self, t: *T) ?*T {
            const kicked = q.next.swap(t, .acq_rel) orelse return null;
            return if (q.push(kicked)) null else kicked;
        }

        /// The owner's, when `push` said full: half of the queue, then `t`, for the global queue.
        /// Null if thieves made room meanwhile: try again.
        pub fn overflow(q: *Self, t: *T) ?Batch(T) {
            const head = q.head.load(.acquire);
            const tail = q.tail.load(.monotonic);
            const n = (tail -% head) / 2;
            if (n != capacity / 2) return null;
            var taken: [capacity / 2]*T = undefined;
            for (0..n) |i|
                taken[i] = q.slots[(head +% @as(u32, @intCast(i))) % capacity].load(.monotonic).?;
            // Release: a thief that reads the new head has to see these slots as read.
            if (q.head.cmpxchgStrong(head, head +% n, .release, .monotonic) != null) return null;
            var batch: Batch(T) = .{};
            for (taken[0..n]) |each| batch.push(each);
            batch.push(t);
            return batch;
        }

        /// The owner's.
        pub inline fn pop(q: *Self) ?*T {
            var head = q.head.load(.acquire);
            while (true) {
                const tail = q.tail.load(.monotonic);
                if (tail == head) return null;
                const t = q.slots[head % capacity].load(.monotonic).?;
                if (planted == .pop_without_cas) q.head.store(head +% 1, .release);
                if (planted == .pop_without_cas) return t;
                head = q.head.cmpxchgWeak(head, head +% 1, .release, .acquire) orelse return t;
            }
        }

        /// The owner's, after a `pop`. Among many goroutines the context of each is in no cache by
        /// the time its turn comes again: that of the next is fetched while this one runs, the one
        /// after that a turn earlier. T needs `sp`, the lowest address of what is read first.
        pub inline fn warm(q: *Self) void {
            const head = q.head.raw;
            const present = q.tail.raw -% head;
            if (present == 0) return;
            if (q.slots[head % capacity].raw) |next| {
                const sp = @atomicLoad(usize, &next.sp, .monotonic);
                inline for (0..3) |line| prefetch(sp + line * 64);
            }
            if (present == 1) return;
            if (q.slots[(head +% 1) % capacity].raw) |after| {
                prefetch(@intFromPtr(after));
                prefetch(@intFromPtr(after) + 64);
            }
        }

        inline fn prefetch(address: usize) void {
            @prefetch(@as([*]allowzero const u8, @ptrFromInt(address)), .{ .rw = .write });
        }

        /// The owner's.
        pub inline fn popNext(q: *Self) ?*T {
            // Only the owner makes it something else than null, so an empty one stays so.
            if (q.next.load(.monotonic) == null) return null;
            return q.next.swap(null, .acq_rel);
        }

        /// How many there are, as far as other threads than the owner can tell.
        pub fn len(q: *const Self) u32 {
            const head = q.head.load(.acquire);
            const tail = q.tail.load(.acquire);
            const n = tail -% head;
            return if (n > capacity) 0 else n;
        }

        /// As `len`, with `next`.
        pub fn waiting(q: *const Self) u32 {
            return q.len() + @intFromBool(q.next.load(.monotonic) != null);
        }

        /// For any thread. Not fooled by an owner that moves a goroutine from `next` to the queue:
        /// a tail that has not changed proves that the three were seen at one time.
        pub fn isEmpty(q: *const Self) bool {
            while (true) {
                const head = q.head.load(.acquire);
                const tail = q.tail.load(.acquire);
                const next = q.next.load(.acquire);
                if (planted == .empty_unchecked or q.tail.load(.acquire) == tail)
                    return head == tail and next == null;
            }
        }

        /// A thief's: takes half of the queue of `victim`, rounded up, into its own, which is
        /// empty, and one of them out to run. Adds to `count` how many were taken.
        pub fn stealFrom(q: *Self, victim: *Self, take_next: bool, count: *u64) ?*T {
            const tail = q.tail.load(.monotonic);
            const n = victim.grab(q, tail, take_next);
            if (n == 0) return null;
            count.* += n;
            const t = q.slots[(tail +% n -% 1) % capacity].load(.monotonic).?;
            // Nothing is published when the one to run was the only one.
            const published = if (planted == .steal_publishes_its_own) n else n -% 1;
            if (n > 1) q.tail.store(tail +% published, .release);
            return t;
        }

        fn grab(q: *Self, into: *Self, at: u32, take_next: bool) u32 {
            while (true) {
                const head = q.head.load(.acquire);
                const tail = q.tail.load(.acquire); // pairs with the release in `push`
                const present = tail -% head;
                const n = present - present / 2;
                if (n == 0) {
                    if (!take_next) return 0;
                    const t = q.next.load(.acquire) orelse return 0;
                    if (q.next.cmpxchgStrong(t, null, .acq_rel, .monotonic) != null) continue;
                    into.slots[at % capacity].store(t, .monotonic);
                    return 1;
                }
                if (n > capacity / 2) continue; // head and tail were read at different times
                for (0..n) |i| {
                    const k: u32 = @intCast(i);
                    const t = q.slots[(head +% k) % capacity].load(.monotonic);
                    into.slots[(at +% k) % capacity].store(t, .monotonic);
                }
                if (planted == .steal_without_cas) q.head.store(head +% n, .release);
                if (planted == .steal_without_cas) return n;
                if (q.head.cmpxchgStrong(head, head +% n, .release, .monotonic) == null) return n;
            }
        }
    };
}

/// Under the scheduler's lock, but for `len`, which any thread may read.
pub fn GlobalQueue(comptime Env: type, comptime T: type) type {
    return struct {
        const Self = @This();

        list: Batch(T) = .{},
        len: Env.Atomic(u32) = .init(0),

        pub fn push(q: *Self, t: *T) void {
            q.list.push(t);
            q.len.store(@intCast(q.list.len), .release);
        }

        pub fn pushAll(q: *Self, batch: *Batch(T)) void {
            q.list.append(batch);
            q.len.store(@intCast(q.list.len), .release);
        }

        /// Takes out `t`. `before` is its predecessor.
        pub fn removeAfter(q: *Self, before: ?*T, t: *T) void {
            q.list.removeAfter(before, t);
            q.len.store(@intCast(q.list.len), .release);
        }

        pub fn pop(q: *Self) ?*T {
            const t = q.list.pop() orelse return null;
            q.len.store(@intCast(q.list.len), .release);
            return t;
        }
    };
}
