//! WaitGroup: goroutines that wait until a counter is zero, as Go's sync.WaitGroup. Everything here
//! needs the lane's lock.
const g_mod = @import("../sched/g.zig");
const G = g_mod.G;

/// Goroutines that wait for one event; each lies on its goroutine's stack.
pub fn WaitList(comptime Lane: type) type {
    return struct {
        const Self = @This();
        pub const Node = struct { g: *G, next: ?*Node = null };

        head: ?*Node = null,

        /// Parks until `wakeAll`.
        pub fn wait(
            l: *Self,
            lane: *Lane,
            g: *G,
            reason: g_mod.WaitReason,
            deadline: ?u64,
        ) g_mod.Wake {
            var node: Node = .{ .g = g };
            lane.prepare(g);
            l.push(&node);
            const wake = lane.park(g, reason, deadline);
            // Whoever was claimed by somebody else is still in the list, unless wakeAll emptied it.
            l.remove(&node);
            return wake;
        }

        pub fn push(l: *Self, node: *Node) void {
            var link = &l.head;
            while (link.*) |n| link = &n.next;
            link.* = node;
        }

        /// For one that is not in the list, nothing.
        pub fn remove(l: *Self, node: *Node) void {
            var link = &l.head;
            while (link.*) |n| : (link = &n.next) {
                if (n == node) {
                    link.* = n.next;
                    return;
                }
            }
        }

        pub fn wakeAll(l: *Self, lane: *Lane) void {
            var it = l.head;
            l.head = null;
            while (it) |n| {
                it = n.next;
                if (lane.claim(n.g, .ready)) {
                    n.g.fired = n;
                    lane.readyLast(n.g);
                }
            }
        }
    };
}

pub fn WaitGroup(comptime Lane: type) type {
    return struct {
        const Self = @This();

        count: i64 = 0,
        waiters: WaitList(Lane) = .{},

        pub const AddError = error{ Negative, Overflow };

        pub fn add(w: *Self, lane: *Lane, delta: i64) AddError!void {
            const sum, const overflow = @addWithOverflow(w.count, delta);
            if (overflow != 0) return error.Overflow;
            if (sum < 0) return error.Negative;
            w.count = sum;
            if (sum == 0 and w.waiters.head != null) w.waiters.wakeAll(lane);
        }
    };
}
