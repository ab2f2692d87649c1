//! The inbox of a serial lane: how threads that never hold the host's lock, those of native
//! goroutines above all, make goroutines of the lane ready.
//!
//! They leave an `Entry`, in a list that takes no lock, and whoever has the host's lock empties it
//! (`drain`) and does what the entries say. What keeps a wake-up from being lost:
//!  - `post` puts the entry into the list, then sets the lane's `attention`, then looks at `asleep`
//!    and breaks the poller's wait if that is set. All are sequentially consistent.
//!  - A goroutine that stops looks at `attention`, clears it, and then drains. If the clearing came
//!    after the setting, the entry is in the list by then; if before, the flag stays for the next.
//!  - An M that finds nothing to run drains, and sets `asleep` before it looks at the list for the
//!    last time. If that look missed the entry, `post` sees `asleep`. It is cleared with the host's
//!    lock after the wait, and before the list is drained again.
//!  - An M gives the P up without waiting only to another M that is in the poller, or on its way to
//!    take the P: both come past a drain. Where there is no thread to be had for one, the goroutine
//!    that comes back from a blocking call takes the P, and the entry waits as everything else
//!    does.
//!  - While the goroutine that holds the P blocks, sysmon sees the list (`othersRunnable`), and has
//!    the P taken from it.
//! `lock` keeps the poller there while it is being woken, since a run may end at any time. An entry
//! belongs to whoever posted it until `arrive` is called, and to nobody here from then on.
const std = @import("std");
const Lock = @import("lock.zig").Lock;

pub const Entry = struct {
    next: ?*Entry = null,
    /// With the host's lock. It must not run code of the program.
    arrive: *const fn (*Entry) void,
};

pub const Inbox = struct {
    head: std.atomic.Value(?*Entry) = .init(null),
    asleep: std.atomic.Value(bool) = .init(false),
    lock: Lock = .{},

    /// Any thread.
    pub fn push(i: *Inbox, e: *Entry) void {
        var head = i.head.load(.monotonic);
        while (true) {
            e.next = head;
            head = i.head.cmpxchgWeak(head, e, .seq_cst, .monotonic) orelse return;
        }
    }

    pub inline fn isEmpty(i: *const Inbox) bool {
        return i.head.load(.seq_cst) == null;
    }

    /// First come, first served. With the host's lock.
    pub fn drain(i: *Inbox) void {
        var it = i.head.swap(null, .seq_cst);
        var first: ?*Entry = null;
        while (it) |e| {
            it = e.next;
            e.next = first;
            first = e;
        }
        while (first) |e| {
            first = e.next;
            e.arrive(e);
        }
    }

    /// Before an M waits in the poller: true if it must not. With the host's lock.
    pub fn fallAsleep(i: *Inbox) bool {
        i.lock.lock();
        i.asleep.store(true, .seq_cst);
        i.lock.unlock();
        if (i.isEmpty()) return false;
        i.awake();
        return true;
    }

    /// After the wait. With the host's lock.
    pub fn awake(i: *Inbox) void {
        i.lock.lock();
        i.asleep.store(false, .seq_cst);
        i.lock.unlock();
    }

    /// After `push`. `pollBreak` ends the wait of the M that is asleep.
    pub fn ring(i: *Inbox, comptime pollBreak: fn () void) void {
        if (!i.asleep.load(.seq_cst)) return;
        i.lock.lock();
        defer i.lock.unlock();
        if (i.asleep.load(.seq_cst)) pollBreak();
    }
};

test "entries arrive in the order of their posts" {
    const S = struct {
        entry: Entry = .{ .arrive = arrive },
        number: u32 = 0,

        var seen: [3]u32 = undefined;
        var count: usize = 0;

        fn arrive(e: *Entry) void {
            const s: *@This() = @fieldParentPtr("entry", e);
            seen[count] = s.number;
            count += 1;
        }
    };
    var inbox: Inbox = .{};
    var each: [3]S = .{ .{ .number = 1 }, .{ .number = 2 }, .{ .number = 3 } };
    inbox.push(&each[0].entry);
    try std.testing.expect(inbox.fallAsleep());
    inbox.push(&each[1].entry);
    inbox.push(&each[2].entry);
    inbox.drain();
    try std.testing.expectEqualSlices(u32, &.{ 1, 2, 3 }, &S.seen);
    try std.testing.expect(!inbox.fallAsleep());
}
