//! The sockets of the Python lane: what is readable and writable, and which goroutines wait.
//!
//! A descriptor is registered once, edge-triggered, for both directions. Each direction (`Side`)
//! remembers whether an attempt may succeed; a goroutine tries the system call first and parks only
//! when the kernel said no. An edge may tell of a state that is over by the time of the attempt:
//! what the attempt finds is what counts. Descriptors are never freed, only reused, and carry a
//! sequence number, so that an event that was fetched before a close finds nobody. All of it
//! belongs to a lane and needs its lock, but for `wait`, `wake` and `pending`.
//!
//! A program may close a file without a word. Its number is then another's sooner or later: who is
//! opened under the number of one that is open takes that one's place, whose waiters find it
//! closed.
const std = @import("std");
const os = @import("../os/os.zig");
const netpoll = @import("netpoll.zig");
const g_mod = @import("../sched/g.zig");
const list = @import("../core/list.zig");
const G = g_mod.G;
const Handle = os.Handle;
const Ready = netpoll.Ready;

pub const Waiter = struct {
    g: *G,
    /// It is going to try, and says by `passOn` what it has left over.
    tries: bool = false,
    prev: ?*Waiter = null,
    next: ?*Waiter = null,
};

pub const Side = struct {
    /// An attempt may succeed.
    ready: bool = true,
    /// As far as is known it will never block again: no edge is to come.
    sticky: bool = false,
    /// Those that have waited longest come first.
    waiters: List = .{},

    pub const List = list.List(Waiter);

    /// The kernel said that an attempt would block. It knows better than an edge: a socket that was
    /// watched before it was connected has told of a hang-up, and an error may have been taken by
    /// somebody else.
    pub inline fn drained(s: *Side) void {
        s.ready = false;
        s.sticky = false;
    }

    /// An attempt got all that there was, though nobody has said so.
    pub inline fn emptied(s: *Side) void {
        s.ready = s.sticky;
    }
};

pub const Desc = struct {
    fd: Handle = .none,
    index: u32,
    seq: u32 = 0,
    closing: bool = false,
    /// A read may give less than there is, though it asked for more.
    stops_short: bool = false,
    /// Where the owner has the number: none once the file is not his any more.
    owner: *Handle = undefined,
    read: Side = .{},
    write: Side = .{},
    next_free: ?*Desc = null,

    fn tag(d: *const Desc) u64 {
        return @as(u64, d.seq) << 32 | d.index;
    }
};

pub fn Poller(comptime Lane: type) type {
    return struct {
        const Self = @This();

        gpa: std.mem.Allocator,
        lane: *Lane,
        backend: netpoll.Backend,
        descs: std.ArrayList(*Desc) = .empty,
        free: ?*Desc = null,
        /// By number, those that are open.
        by_fd: std.AutoHashMapUnmanaged(Handle, *Desc) = .empty,
        registered: usize = 0,
        /// Filled by the M that waits.
        waited: [netpoll.batch]Ready = undefined,
        waited_len: usize = 0,
        /// Filled by `now`.
        looked: [netpoll.batch]Ready = undefined,

        pub fn init(gpa: std.mem.Allocator, lane: *Lane) !Self {
            return .{ .gpa = gpa, .lane = lane, .backend = try .init() };
        }

        pub fn deinit(p: *Self) void {
            for (p.descs.items) |d| p.gpa.destroy(d);
            p.descs.deinit(p.gpa);
            p.by_fd.deinit(p.gpa);
            p.backend.deinit();
        }

        /// In the child of a fork, which shares the poller's descriptors with the parent: to close
        /// them here changes nothing there.
        pub fn forget(p: *Self) void {
            p.backend.deinit();
            p.descs.clearRetainingCapacity();
            p.by_fd.clearRetainingCapacity();
            p.free = null;
            p.registered = 0;
        }

        /// `owner.*` becomes `fd`.
        pub fn open(p: *Self, fd: Handle, owner: *Handle) !*Desc {
            try p.by_fd.ensureUnusedCapacity(p.gpa, 1);
            const d = p.free orelse new: {
                try p.descs.ensureUnusedCapacity(p.gpa, 1);
                const d = try p.gpa.create(Desc);
                d.* = .{ .index = @intCast(p.descs.items.len) };
                p.descs.appendAssumeCapacity(d);
                p.free = d;
                break :new d;
            };
            try p.backend.add(fd, @as(u64, d.seq) << 32 | d.index);
            p.free = d.next_free;
            d.* = .{ .index = d.index, .seq = d.seq, .fd = fd, .owner = owner };
            // The backend has the file of this number for a new one, so that the old one is gone.
            if (p.by_fd.get(fd)) |old| p.lose(old);
            p.by_fd.putAssumeCapacity(fd, d);
            owner.* = fd;
            p.registered += 1;
            return d;
        }

        /// The program closes the file without its owner, or has: for him it is closed.
        fn lose(p: *Self, d: *Desc) void {
            d.owner.* = .none;
            p.retire(d);
        }

        /// As `lose`, of all descriptors in [low, high), before the program closes them.
        pub fn loseRange(p: *Self, low: i32, high: i32) void {
            if (p.registered == 0) return;
            if (high -| low == 1) return if (p.by_fd.get(.of(low))) |d| p.loseWatched(d);
            for (p.descs.items) |d| {
                const fd = d.fd.fd();
                if (fd >= 0 and fd >= low and fd < high) p.loseWatched(d);
            }
        }

        fn loseWatched(p: *Self, d: *Desc) void {
            p.backend.remove(d.fd);
            p.lose(d);
        }

        /// Wakes who waits for it with `closed` and forgets the descriptor. Who closes the file
        /// does that afterwards.
        pub fn close(p: *Self, d: *Desc) void {
            p.backend.remove(d.fd);
            p.retire(d);
        }

        fn retire(p: *Self, d: *Desc) void {
            d.closing = true;
            _ = p.by_fd.remove(d.fd);
            p.wakeSide(&d.read, .closed);
            p.wakeSide(&d.write, .closed);
            d.seq +%= 1;
            d.fd = .none;
            d.next_free = p.free;
            p.free = d;
            p.registered -= 1;
        }

        /// Parks until `side` may be tried again, until `deadline`, or until the close. Who `tries`
        /// and is told `ready` owes an attempt, and `passOn` after one that has not drained `side`.
        pub fn park(
            p: *Self,
            side: *Side,
            g: *G,
            reason: g_mod.WaitReason,
            deadline: ?u64,
            tries: bool,
        ) g_mod.Wake {
            var waiter: Waiter = .{ .g = g, .tries = tries };
            p.lane.prepare(g);
            p.link(side, &waiter);
            const wake = p.lane.park(g, reason, deadline);
            p.unlink(side, &waiter, wake == .ready or wake == .closed);
            return wake;
        }

        /// Between the lane's `prepare` and `park`.
        pub fn link(p: *Self, side: *Side, waiter: *Waiter) void {
            side.waiters.push(waiter);
            if (!waiter.g.system) p.lane.net_waiters += 1;
        }

        /// After `park`. Whoever `fired` is in no list any more.
        pub fn unlink(p: *Self, side: *Side, waiter: *Waiter, fired: bool) void {
            if (!waiter.g.system) p.lane.net_waiters -= 1;
            if (!fired) side.waiters.remove(waiter);
        }

        /// All of them on a close. An edge tells only once: it wakes one that tries, which passes
        /// on what it leaves over, and those before that one which only want to know. To wake all
        /// would have thousands try in vain for each packet.
        fn wakeSide(p: *Self, side: *Side, wake: g_mod.Wake) void {
            while (side.waiters.head) |w| {
                side.waiters.remove(w);
                // Timed out or interrupted already; it goes on by itself.
                if (!p.lane.claim(w.g, wake)) continue;
                w.g.fired = w;
                p.lane.counters.netpoll_wakeups += 1;
                p.lane.readyLast(w.g);
                if (wake == .ready and w.tries) break;
            }
        }

        /// After an attempt that gave a result: the next one may have one too.
        pub inline fn passOn(p: *Self, side: *Side) void {
            if (side.ready and side.waiters.head != null) p.wakeSide(side, .ready);
        }

        fn deliver(p: *Self, events: []const Ready) void {
            for (events) |e| {
                if (e.tag == netpoll.signal_tag) {
                    p.lane.signal_pending = true;
                    continue;
                }
                const index: u32 = @truncate(e.tag);
                const d = if (index < p.descs.items.len) p.descs.items[index] else null;
                if (d == null or d.?.fd == .none or d.?.tag() != e.tag) {
                    // Of one that was closed meanwhile, unless these are not our descriptors.
                    p.backend.verify();
                    continue;
                }
                p.deliverTo(d.?, e);
            }
        }

        inline fn deliverTo(p: *Self, d: *Desc, e: Ready) void {
            if (p.lane.ring.wants(.netpoll_ready)) p.recordReady(d, e);
            if (e.hangup or e.eof) d.read.sticky = true;
            if (e.hangup) d.write.sticky = true;
            if (e.urgent) d.stops_short = true;
            if (e.read) p.markReady(&d.read);
            if (e.write) p.markReady(&d.write);
        }

        inline fn markReady(p: *Self, side: *Side) void {
            side.ready = true;
            p.passOn(side);
        }

        fn recordReady(p: *Self, d: *Desc, e: Ready) void {
            const writer = d.write.waiters.head;
            const waiter = if (e.read or e.hangup) d.read.waiters.head orelse writer else writer;
            const w = waiter orelse return;
            const mode: u32 = @as(u32, @intFromBool(e.read)) | @as(u32, @intFromBool(e.write)) << 1;
            p.lane.record(.netpoll_ready, w.g.id, @intCast(d.fd.number()), mode);
        }

        /// Waits without the lock; `results` delivers with it. `timeout_ns` null is for ever.
        pub fn wait(p: *Self, timeout_ns: ?u64) netpoll.WaitResult {
            return p.backend.wait(&p.waited, &p.waited_len, timeout_ns);
        }

        pub fn results(p: *Self) void {
            p.deliver(p.waited[0..p.waited_len]);
            p.waited_len = 0;
        }

        /// Looks and delivers, without waiting. Runs on the stacks of goroutines, on which nothing
        /// large may lie.
        pub noinline fn now(p: *Self) void {
            var len: usize = 0;
            _ = p.backend.wait(&p.looked, &len, 0);
            p.deliver(p.looked[0..len]);
        }
    };
}
