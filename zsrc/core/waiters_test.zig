//! Queues of waiters. A claim is a plain store here.
const std = @import("std");
const Waiters = @import("waiters.zig").Waiters;
const wait_mod = @import("wait.zig");
const Wake = wait_mod.Wake;
const WaitReason = wait_mod.WaitReason;

/// Goroutines that wait: `who` points to the wake-up that counted.
const Fake = struct {
    pub const Env = struct {
        pub const Lock = struct {
            pub fn lock(_: *Lock) void {}
            pub fn unlock(_: *Lock) void {}
        };
    };
    pub const Run = u32;
    pub const Me = void;
    pub const Who = *?Wake;
    pub const last_is_next = true;
    var present: u32 = 1;
    var woken: [4]?Who = @splat(null);
    var count: usize = 0;

    pub fn run() u32 {
        return present;
    }
    pub fn claim(who: Who, wake: Wake, _: *anyopaque) bool {
        if (who.* != null) return false;
        who.* = wake;
        return true;
    }
    pub fn isClaimed(who: Who) bool {
        return who.* != null;
    }
    pub fn wakeLast(who: Who) void {
        woken[count] = who;
        count += 1;
    }
    pub const Blocker = struct {
        who_: ?Wake,
        pub fn init(b: *Blocker, _: Me, _: bool) void {
            b.who_ = null;
        }
        pub fn who(b: *Blocker) Who {
            return &b.who_;
        }
        pub fn block(b: *Blocker, _: WaitReason, _: ?u64, unlock: anytype, lock: *Env.Lock) Wake {
            _ = unlock(lock);
            _ = claim(&b.who_, .timeout, b);
            return b.who_.?;
        }
    };
};

test "a waiter that has left is passed by, and one that is claimed twice is woken once" {
    const Q = Waiters(Fake, void);
    var q: Q = .{};
    var ends: [3]?Wake = .{ null, .timeout, null };
    var waiters: [3]Q.Waiter = @splat(.{});
    for (&waiters, &ends) |*w, *e| {
        w.who = e;
        q.push(w);
    }
    try std.testing.expectEqual(&waiters[0], q.take(.ready).?);
    try std.testing.expectEqual(&waiters[2], q.first().?);
    q.remove(&waiters[1]); // nothing: it was passed by
    q.pushFront(&waiters[1]);
    Fake.count = 0;
    var lock: Fake.Env.Lock = .{};
    q.end(&lock, .ready);
    try std.testing.expectEqual(1, Fake.count);
    try std.testing.expectEqual(&ends[2], Fake.woken[0].?);
    try std.testing.expect(waiters[1].given and ends[1] == .timeout and q.isEmpty());
    var own: Q.Waiter = .{};
    try std.testing.expectEqual(.timeout, q.wait(&lock, &own, {}, .none, 5));
    try std.testing.expect(q.isEmpty());
}

test "waiters of another run are forgotten, and do not take others out" {
    const Q = Waiters(Fake, void);
    var q: Q = .{};
    var ends: [2]?Wake = @splat(null);
    var waiters: [2]Q.Waiter = .{ .{ .who = &ends[0] }, .{ .who = &ends[1] } };
    q.push(&waiters[0]);
    Fake.present += 1;
    q.remove(&waiters[0]);
    try std.testing.expect(!q.isEmpty());
    q.push(&waiters[1]);
    q.remove(&waiters[0]);
    try std.testing.expectEqual(&waiters[1], q.take(.ready).?);
    try std.testing.expectEqual(null, q.take(.ready));
}
