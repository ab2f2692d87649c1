//! A doubly linked list whose items lie where their owners want: on the stacks of goroutines that
//! wait, mostly. Everything here needs the lane's lock.

/// Waiters, first come, first served.
pub fn List(comptime W: type) type {
    return struct {
        head: ?*W = null,
        tail: ?*W = null,

        pub inline fn push(l: *@This(), w: *W) void {
            w.next = null;
            w.prev = l.tail;
            if (l.tail) |t| t.next = w else l.head = w;
            l.tail = w;
        }

        /// All at once, so that to remove one of them does nothing.
        pub fn clear(l: *@This()) void {
            while (l.head) |w| {
                l.head = w.next;
                w.prev = null;
                w.next = null;
            }
            l.tail = null;
        }

        pub fn has(l: *const @This(), w: *W) bool {
            var it = l.head;
            while (it) |each| : (it = each.next) if (each == w) return true;
            return false;
        }

        pub inline fn remove(l: *@This(), w: *W) void {
            if (w.prev) |p| p.next = w.next else if (l.head == w) l.head = w.next else return;
            if (w.next) |n| n.prev = w.prev else l.tail = w.prev;
            w.prev = null;
            w.next = null;
        }
    };
}
