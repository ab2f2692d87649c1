//! Lists whose items lie where their owners want, mostly on the stacks of goroutines that wait: an
//! item has the links, and nothing is allocated. A thread that touches a list holds the lock of the
//! object that the list belongs to.
const std = @import("std");

/// Doubly linked, by `next` and `prev`: any item can be taken out at once. To take out one that is
/// not in the list does nothing, if its links are null.
pub fn List(comptime W: type) type {
    return extern struct {
        const Self = @This();

        head: ?*W = null,
        tail: ?*W = null,

        pub inline fn push(l: *Self, w: *W) void {
            w.next = null;
            w.prev = l.tail;
            if (l.tail) |t| t.next = w else l.head = w;
            l.tail = w;
        }

        pub inline fn pushFront(l: *Self, w: *W) void {
            w.prev = null;
            w.next = l.head;
            if (l.head) |h| h.prev = w else l.tail = w;
            l.head = w;
        }

        pub inline fn remove(l: *Self, w: *W) void {
            if (w.prev) |p| p.next = w.next else if (l.head == w) l.head = w.next else return;
            if (w.next) |n| n.prev = w.prev else l.tail = w.prev;
            w.prev = null;
            w.next = null;
        }

        pub inline fn pop(l: *Self) ?*W {
            const w = l.head orelse return null;
            l.head = w.next;
            if (w.next) |n| n.prev = null else l.tail = null;
            w.next = null;
            return w;
        }

        /// All at once, so that to remove one of them does nothing.
        pub fn clear(l: *Self) void {
            while (l.pop()) |_| {}
        }

        pub fn has(l: *const Self, w: *W) bool {
            var it = l.head;
            while (it) |each| : (it = each.next) if (each == w) return true;
            return false;
        }
    };
}

/// First in, first out, linked by `next`, and counted.
pub fn Fifo(comptime T: type) type {
    return struct {
        const Self = @This();

        head: ?*T = null,
        tail: ?*T = null,
        len: usize = 0,

        pub inline fn push(q: *Self, t: *T) void {
            t.next = null;
            if (q.tail) |last| last.next = t else q.head = t;
            q.tail = t;
            q.len += 1;
        }

        pub inline fn pushFront(q: *Self, t: *T) void {
            t.next = q.head;
            if (q.head == null) q.tail = t;
            q.head = t;
            q.len += 1;
        }

        pub inline fn pop(q: *Self) ?*T {
            const t = q.head orelse return null;
            q.head = t.next;
            if (q.head == null) q.tail = null;
            t.next = null;
            q.len -= 1;
            return t;
        }

        /// Moves all of `other` to the end.
        pub fn append(q: *Self, other: *Self) void {
            if (other.head == null) return;
            if (q.tail) |last| last.next = other.head else q.head = other.head;
            q.tail = other.tail;
            q.len += other.len;
            other.* = .{};
        }

        /// Takes one from the middle; null if there are not that many.
        pub fn takeAt(q: *Self, index: usize) ?*T {
            var before: ?*T = null;
            var at = q.head;
            for (0..index) |_| {
                before = at orelse return null;
                at = before.?.next;
            }
            const t = at orelse return null;
            q.removeAfter(before, t);
            return t;
        }

        /// Takes out `t`. `before` is its predecessor.
        pub fn removeAfter(q: *Self, before: ?*T, t: *T) void {
            if (before) |b| b.next = t.next else q.head = t.next;
            if (t.next == null) q.tail = before;
            t.next = null;
            q.len -= 1;
        }
    };
}

const Item = struct { prev: ?*Item = null, next: ?*Item = null };

test "a queue keeps its order" {
    var q: Fifo(Item) = .{};
    var items: [3]Item = @splat(.{});
    for (items[1..]) |*item| q.push(item);
    q.pushFront(&items[0]);
    for (&items) |*item| try std.testing.expectEqual(item, q.pop().?);
    try std.testing.expectEqual(null, q.pop());
    try std.testing.expectEqual(0, q.len);
}

test "a queue can be left from anywhere" {
    var items: [4]Item = @splat(.{});
    for (0..4) |index| {
        var q: Fifo(Item) = .{};
        for (&items) |*item| q.push(item);
        try std.testing.expectEqual(&items[index], q.takeAt(index).?);
        try std.testing.expectEqual(null, q.takeAt(3));
        q.push(&items[index]);
        for (&items, 0..) |*item, i| if (i != index) try std.testing.expectEqual(item, q.pop().?);
        try std.testing.expectEqual(&items[index], q.pop().?);
        try std.testing.expectEqual(null, q.takeAt(0));
        try std.testing.expectEqual(0, q.len);
    }
}

test "a queue goes to the end of another" {
    var items: [4]Item = @splat(.{});
    var q: Fifo(Item) = .{};
    var other: Fifo(Item) = .{};
    q.append(&other);
    for (items[0..2]) |*item| q.push(item);
    for (items[2..]) |*item| other.push(item);
    q.append(&other);
    try std.testing.expectEqual(0, other.len);
    for (&items) |*item| try std.testing.expectEqual(item, q.pop().?);
}

test "an item leaves a list from anywhere, once" {
    var items: [3]Item = @splat(.{});
    for (0..3) |index| {
        var l: List(Item) = .{};
        for (items[1..]) |*item| l.push(item);
        l.pushFront(&items[0]);
        l.remove(&items[index]);
        l.remove(&items[index]);
        for (&items, 0..) |*item, i| try std.testing.expectEqual(i != index, l.has(item));
        for (&items, 0..) |*item, i| if (i != index) try std.testing.expectEqual(item, l.pop().?);
        try std.testing.expectEqual(null, l.pop());
        try std.testing.expectEqual(null, l.tail);
    }
}

test "a list that is cleared has let go of its items" {
    var items: [3]Item = @splat(.{});
    var l: List(Item) = .{};
    for (&items) |*item| l.push(item);
    l.clear();
    l.push(&items[1]);
    l.remove(&items[0]);
    try std.testing.expectEqual(&items[1], l.pop().?);
    try std.testing.expectEqual(null, l.head);
}
