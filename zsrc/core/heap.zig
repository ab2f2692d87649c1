//! What is due at a time: a 4-ary min-heap, as Go's timers (runtime/time.go).
//!
//! The time lies beside the payload, so that to find a place touches no payload. A payload is told
//! its place by `moved`, so that taking it out costs no search and leaves no garbage. Both lanes'
//! timers are made of this. Each use is under the lock of what the heap belongs to.
const std = @import("std");
const Allocator = std.mem.Allocator;

pub const never = std.math.maxInt(u64);

/// `moved(payload, place)` is told of each place that a payload gets.
pub fn Heap(comptime Payload: type, comptime moved: fn (Payload, u32) void) type {
    return struct {
        const Self = @This();

        pub const Item = struct {
            /// Monotonic nanoseconds.
            when: u64,
            payload: Payload,
        };

        const arity = 4;
        const line = arity * @sizeOf(Item);
        /// Where the heap begins in `items`, so that siblings share a cache line: those of the
        /// first generation are in places 4 to 7. The places before are not used.
        pub const root = arity - 1;

        items: std.array_list.Aligned(Item, .fromByteUnits(line)) = .empty,

        pub fn deinit(h: *Self, gpa: Allocator) void {
            h.items.deinit(gpa);
            h.* = .{};
        }

        pub inline fn isEmpty(h: *const Self) bool {
            return h.items.items.len <= root;
        }

        pub inline fn len(h: *const Self) usize {
            return h.items.items.len -| root;
        }

        /// In no order.
        pub inline fn all(h: *const Self) []const Item {
            return h.items.items[@min(root, h.items.items.len)..];
        }

        /// The earliest, of one that is not empty.
        pub inline fn first(h: *const Self) Item {
            return h.items.items[root];
        }

        /// When the earliest is due, or `never`.
        pub inline fn earliest(h: *const Self) u64 {
            return if (h.isEmpty()) never else h.first().when;
        }

        /// There is the memory to add so many.
        pub inline fn reserve(h: *Self, gpa: Allocator, count: usize) Allocator.Error!void {
            try h.items.ensureUnusedCapacity(gpa, root + count);
        }

        /// True if it is the earliest now.
        pub inline fn add(h: *Self, gpa: Allocator, item: Item) Allocator.Error!bool {
            if (h.items.items.len == 0) try h.items.appendNTimes(gpa, undefined, root);
            try h.items.append(gpa, undefined);
            return h.up(h.items.items.len - 1, item) == root;
        }

        pub inline fn takeOut(h: *Self, at: usize) void {
            const last = h.items.pop().?;
            if (at == h.items.items.len) return;
            if (at > root and h.items.items[parentOf(at)].when > last.when) {
                _ = h.up(at, last);
            } else h.down(at, last);
        }

        inline fn parentOf(at: usize) usize {
            return at / arity + root - 1;
        }

        inline fn firstChildOf(at: usize) usize {
            return (at - root + 1) * arity;
        }

        inline fn put(h: *Self, at: usize, item: Item) void {
            h.items.items[at] = item;
            moved(item.payload, @intCast(at));
        }

        fn up(h: *Self, start: usize, item: Item) usize {
            var at = start;
            while (at > root) {
                const parent = parentOf(at);
                const p = h.items.items[parent];
                if (p.when <= item.when) break;
                h.put(at, p);
                at = parent;
            }
            h.put(at, item);
            return at;
        }

        fn down(h: *Self, start: usize, item: Item) void {
            const items = h.items.items;
            var at = start;
            while (true) {
                const child = firstChildOf(at);
                if (child >= items.len) break;
                var least = child;
                const end = @min(child + arity, items.len);
                for (child + 1..end) |i| {
                    if (items[i].when < items[least].when) least = i;
                }
                if (items[least].when >= item.when) break;
                h.put(at, items[least]);
                at = least;
            }
            h.put(at, item);
        }
    };
}

test "items come out in order, whatever was taken out, and know their places" {
    const gpa = std.testing.allocator;
    const Thing = struct {
        when: u64 = 0,
        at: u32 = 0,

        fn moved(t: *@This(), at: u32) void {
            t.at = at;
        }
    };
    const Things = Heap(*Thing, Thing.moved);
    var h: Things = .{};
    defer h.deinit(gpa);
    try std.testing.expect(h.isEmpty() and h.earliest() == never and h.all().len == 0);
    var rng = std.Random.DefaultPrng.init(1);
    var things: [500]Thing = @splat(.{});
    for (&things) |*t| {
        t.when = rng.random().uintLessThan(u64, 1000);
        const is_first = t.when < h.earliest();
        try std.testing.expectEqual(is_first, try h.add(gpa, .{ .when = t.when, .payload = t }));
    }
    for (0..100) |_| {
        const t = h.all()[rng.random().uintLessThan(usize, h.len())].payload;
        try std.testing.expectEqual(t, h.items.items[t.at].payload);
        h.takeOut(t.at);
    }
    var last: u64 = 0;
    var n: usize = 0;
    while (!h.isEmpty()) : (n += 1) {
        const item = h.first();
        try std.testing.expect(item.when >= last and item.when == item.payload.when);
        last = item.when;
        h.takeOut(Things.root);
    }
    try std.testing.expectEqual(400, n);
}
