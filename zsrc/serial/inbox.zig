//! The inbox of a serial lane: how threads that never hold the host's lock, those of native
//! goroutines above all, make goroutines of the lane ready.
//!
//! They leave an `Entry`, in a list that takes no lock, and a thread that has the host's lock
//! empties it (`drain`) and does what the entries say. What keeps a wake-up from being lost:
//!  - `post` puts the entry into the list, then sets the lane's `attention`, then looks at `asleep`
//!    and breaks the poller's wait if that is set. All are sequentially consistent.
//!  - A goroutine that stops looks at `attention`, clears it, and then drains. If the clearing came
//!    after the setting, the entry is in the list by then; if before, the flag stays for the next.
//!  - An M that finds nothing to run drains, and sets `asleep` before it looks at the list for the
//!    last time. If that look missed the entry, `post` sees `asleep`. It is cleared with the host's
//!    lock after the wait, and before the list is drained again.
//!  - An M gives the P up without waiting only to another M that is in the poller, or on its way to
//!    take the P: both come past a drain. Where no thread can be got for one, the goroutine that
//!    comes back from a blocking call takes the P, and the entry waits as everything else does.
//!  - While the goroutine that holds the P blocks, sysmon sees the list (`othersRunnable`), and has
//!    the P taken from it.
//! `lock` keeps the poller there while it is being woken, since a run may end at any time. An entry
//! belongs to the code that posted it until `arrive` is called, and nothing here touches it from
//! then on.
//!
//! All of this is generic over its environment, and explored: zsrc/check/models/inbox.zig.
const std = @import("std");

pub const Entry = struct {
    next: ?*Entry = null,
    /// With the host's lock. It must not run code of the program.
    arrive: *const fn (*Entry) void,
};

pub const Inbox = InboxOf(Real);

const Real = struct {
    pub const Atomic = std.atomic.Value;
    pub const Lock = @import("lock.zig").Lock;

    pub inline fn reads(_: anytype) void {}
    pub inline fn writes(_: anytype) void {}
};

pub fn InboxOf(comptime Env: type) type {
    return struct {
        const Self = @This();
        const planted = if (@hasDecl(Env, "planted")) Env.planted else .none;

        head: Env.Atomic(?*Entry) = .init(null),
        asleep: Env.Atomic(bool) = .init(false),
        lock: Env.Lock = .{},

        /// Any thread. `attention` is the lane's; `pollBreak` ends the wait of the M that is
        /// asleep. The entry may be gone when this returns.
        pub fn post(
            i: *Self,
            e: *Entry,
            attention: *Env.Atomic(bool),
            comptime pollBreak: fn () void,
        ) void {
            if (planted == .attention_first) attention.store(true, .seq_cst);
            const asleep = planted != .looks_first or i.asleep.load(.seq_cst);
            i.push(e);
            if (planted != .attention_first) attention.store(true, .seq_cst);
            if (asleep) i.ring(pollBreak);
        }

        fn push(i: *Self, e: *Entry) void {
            var head = i.head.load(.monotonic);
            while (true) {
                Env.writes(&e.next);
                e.next = head;
                const order = if (planted == .pushes_relaxed) .monotonic else .seq_cst;
                head = i.head.cmpxchgWeak(head, e, order, .monotonic) orelse return;
            }
        }

        fn ring(i: *Self, comptime pollBreak: fn () void) void {
            if (!i.asleep.load(.seq_cst)) return;
            if (planted == .rings_unlocked) return pollBreak();
            i.lock.lock();
            defer i.lock.unlock();
            if (i.asleep.load(.seq_cst) or planted == .rings_unasked) pollBreak();
        }

        pub inline fn isEmpty(i: *const Self) bool {
            return i.head.load(.seq_cst) == null;
        }

        /// First come, first served. With the host's lock.
        pub fn drain(i: *Self) void {
            var it = i.head.swap(null, .seq_cst);
            var first: ?*Entry = null;
            while (it) |e| {
                Env.writes(&e.next);
                it = e.next;
                e.next = first;
                first = e;
            }
            while (first) |e| {
                Env.reads(&e.next);
                if (planted != .uses_arrived) first = e.next;
                e.arrive(e);
                if (planted != .uses_arrived) continue;
                Env.reads(&e.next);
                first = e.next;
            }
        }

        /// A goroutine stops, since `attention` was set. `meanwhile` is called when that is
        /// cleared, before the list is looked at. With the host's lock.
        pub inline fn attend(
            i: *Self,
            attention: *Env.Atomic(bool),
            comptime meanwhile: fn () void,
        ) void {
            if (planted != .clears_late) attention.store(false, .seq_cst);
            meanwhile();
            if (!i.isEmpty()) i.drain();
            if (planted == .clears_late) attention.store(false, .seq_cst);
        }

        /// Before an M waits in the poller: true if it must not. With the host's lock.
        pub fn fallAsleep(i: *Self) bool {
            if (planted == .looks_early and !i.isEmpty()) return true;
            i.lock.lock();
            i.asleep.store(true, .seq_cst);
            i.lock.unlock();
            if (planted == .looks_early or i.isEmpty()) return false;
            i.awake();
            return true;
        }

        /// After the wait. With the host's lock.
        pub fn awake(i: *Self) void {
            if (planted == .stays_asleep) return;
            i.lock.lock();
            i.asleep.store(false, .seq_cst);
            i.lock.unlock();
        }
    };
}

test "entries arrive in the order of their posts" {
    const S = struct {
        entry: Entry = .{ .arrive = arrive },
        number: u32 = 0,

        var seen: [3]u32 = undefined;
        var count: usize = 0;
        var breaks: u32 = 0;

        fn arrive(e: *Entry) void {
            const s: *@This() = @fieldParentPtr("entry", e);
            seen[count] = s.number;
            count += 1;
        }

        fn looks() void {}

        fn pollBreak() void {
            breaks += 1;
        }
    };
    var inbox: Inbox = .{};
    var attention: std.atomic.Value(bool) = .init(false);
    var each: [3]S = .{ .{ .number = 1 }, .{ .number = 2 }, .{ .number = 3 } };
    inbox.post(&each[0].entry, &attention, S.pollBreak);
    try std.testing.expect(attention.raw);
    try std.testing.expect(inbox.fallAsleep());
    inbox.post(&each[1].entry, &attention, S.pollBreak);
    inbox.post(&each[2].entry, &attention, S.pollBreak);
    inbox.attend(&attention, S.looks);
    try std.testing.expect(!attention.raw and S.breaks == 0);
    try std.testing.expectEqualSlices(u32, &.{ 1, 2, 3 }, &S.seen);
    try std.testing.expect(!inbox.fallAsleep());
    inbox.post(&each[0].entry, &attention, S.pollBreak);
    try std.testing.expectEqual(1, S.breaks);
}
