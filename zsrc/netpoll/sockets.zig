//! The sockets of the Python lane: their owners, and the goroutines that wait for them.
//!
//! Its descriptors and its poller are those of all lanes (desc.zig, poller.zig), without locks: the
//! interpreter's lock is held from the look at a handle to the end of the attempt, which never
//! waits. So no call is counted, and a close is over at once. All of it needs that lock, but for
//! `wait` and the backend's functions. What is the lane's own is here: several goroutines may wait
//! for one direction, and settle their attempts; and the first attempt on a new socket is made
//! without an edge, since most succeed.
//!
//! A program may close a file without a word. Its number is then another's sooner or later. A file
//! that is opened under the number of one that is still open here takes its place, and the waiters
//! of the old one find it closed.
const std = @import("std");
const os = @import("../os/os.zig");
const env = @import("../os/env.zig");
const netpoll = @import("netpoll.zig");
const desc = @import("desc.zig");
const poller = @import("poller.zig");
const g_mod = @import("../serial/g.zig");
const G = g_mod.G;
const Handle = os.Handle;

/// What descriptors are made for.
const Rt = struct {
    pub const Env = env.Real;
    pub const Lock = desc.Unlocked;
    pub const Backend = netpoll.Backend;
    pub const Wait = G;
    /// Where the owner has the handle: none once the file is another's.
    pub const Owner = *Handle;
    pub const settles = true;
    pub const starts_ready = true;

    pub inline fn claim(w: *Waiter, how: desc.How) bool {
        if (!w.wait.claim(if (how == .ready) .ready else .closed)) return false;
        w.wait.fired = w;
        return true;
    }
};

const Descs = poller.Poller(Rt);
pub const Desc = Descs.Desc;
pub const Side = Desc.Side;
pub const Waiter = Desc.Waiter;

pub fn Poller(comptime Lane: type) type {
    return struct {
        const Self = @This();

        gpa: std.mem.Allocator = undefined,
        lane: *Lane = undefined,
        /// From one run to the next.
        descs: Descs = .{},
        /// By handle, those that are open.
        by_fd: std.AutoHashMapUnmanaged(Handle, *Desc) = .empty,
        /// Filled by the M that waits.
        waited: [netpoll.batch]netpoll.Ready = undefined,
        waited_len: usize = 0,
        /// Filled by `now`.
        looked: [netpoll.batch]netpoll.Ready = undefined,

        pub fn init(p: *Self, gpa: std.mem.Allocator, lane: *Lane) !void {
            p.gpa = gpa;
            p.lane = lane;
            p.waited_len = 0;
            try p.descs.init();
        }

        /// At a run's end. Sockets that are left belong to no run any more.
        pub fn deinit(p: *Self) void {
            p.by_fd.deinit(p.gpa);
            p.by_fd = .empty;
            p.descs.forget();
        }

        /// In the child of a fork, which shares the poller's descriptors with the parent: to close
        /// them here changes nothing there.
        pub fn forget(p: *Self) void {
            p.by_fd.clearRetainingCapacity();
            p.descs.forget();
        }

        pub inline fn backend(p: *Self) *netpoll.Backend {
            return &p.descs.backend;
        }

        /// Whether any socket is open.
        pub inline fn wanted(p: *const Self) bool {
            return p.descs.wanted();
        }

        /// `owner.*` becomes `fd`.
        pub fn open(p: *Self, fd: Handle, owner: *Handle) !*Desc {
            return p.openFor(fd, owner, .both);
        }

        /// For a wait on a file that other code owns, and may close at any time without a word: in
        /// the directions in which a goroutine waits, or is about to. Goroutines that wait are told
        /// of what is possible already.
        pub fn watch(p: *Self, fd: Handle, of: netpoll.Directions) !*Desc {
            const d = p.by_fd.get(fd) orelse return p.openFor(fd, &nobodys, of);
            var all: netpoll.Directions = .both;
            if (d.owner == &nobodys and !d.steady) all = .{
                .read = of.read or d.read.waiters.head != null,
                .write = of.write or d.write.waiters.head != null,
            };
            if (p.backend().rearm(fd, Descs.tagOf(d, d.present()), all)) return d;
            // Its file is gone, and the number perhaps another's.
            p.lose(d);
            return p.openFor(fd, &nobodys, of);
        }

        /// As `watch`, for a file whose close golibx is told of: from now on its marks say what may
        /// be tried. A read of it has just found nothing, or will be tried first.
        pub fn watchSteadily(p: *Self, fd: Handle) !*Desc {
            const d = try p.watch(fd, .both);
            d.steady = true;
            // What has come since is told of, by the watch that has just begun.
            d.read.ready = false;
            return d;
        }

        /// The descriptor that `watchSteadily` gave for the file of this number, if it is open.
        pub inline fn steady(p: *const Self, fd: Handle) ?*Desc {
            const d = p.by_fd.get(fd) orelse return null;
            return if (d.steady) d else null;
        }

        /// Where those of `watch` would have their handle.
        var nobodys: Handle = .none;

        fn openFor(p: *Self, fd: Handle, owner: *Handle, of: netpoll.Directions) !*Desc {
            try p.by_fd.ensureUnusedCapacity(p.gpa, 1);
            const tag = try p.descs.make(p.gpa, fd);
            const d = p.descs.descOf(tag).?;
            errdefer p.end(d);
            try p.backend().add(fd, tag, of);
            // The backend has the file of this number for a new one, so that the old one is gone.
            if (p.by_fd.get(fd)) |old| p.lose(old);
            p.by_fd.putAssumeCapacity(fd, d);
            d.owner = owner;
            owner.* = fd;
            return d;
        }

        /// The program closes the file without its owner, or has: for that one it is closed.
        fn lose(p: *Self, d: *Desc) void {
            d.owner.* = .none;
            _ = p.by_fd.remove(d.fd);
            p.end(d);
        }

        /// As `lose`, of all descriptors in [low, high), before the program closes them.
        pub fn loseRange(p: *Self, low: i32, high: i32) void {
            if (!p.wanted()) return;
            if (high -| low == 1) return if (p.by_fd.get(.of(low))) |d| p.loseWatched(d);
            for (0..p.descs.count) |i| {
                const d = p.descs.at(i).?;
                const fd = d.fd.fd();
                if (fd >= 0 and fd >= low and fd < high) p.loseWatched(d);
            }
        }

        /// As `loseRange`, of a file that is no other's, is closed next, and has told all that it
        /// will: the close ends the watch.
        pub fn loseEnded(p: *Self, fd: Handle) void {
            if (p.by_fd.get(fd)) |d| p.lose(d);
        }

        fn loseWatched(p: *Self, d: *Desc) void {
            p.backend().remove(d.fd);
            p.lose(d);
        }

        /// Wakes all that wait for it with `closed` and forgets the descriptor. The caller closes
        /// the file afterwards.
        pub fn close(p: *Self, d: *Desc) void {
            p.backend().remove(d.fd);
            _ = p.by_fd.remove(d.fd);
            p.end(d);
        }

        fn end(p: *Self, d: *Desc) void {
            p.wake(d.close(d.present()).?);
            // No call is counted in this lane, so that this one is the last.
            std.debug.assert(d.decref());
            p.descs.release(d);
        }

        /// Parks until `side` may be tried again, until `deadline`, or until the close. A caller
        /// that `tries` and is told `ready` has the mark, owes an attempt, and settles it.
        pub fn park(
            p: *Self,
            side: *Side,
            g: *G,
            reason: g_mod.WaitReason,
            deadline: ?u64,
            tries: bool,
        ) g_mod.Wake {
            var waiter: Waiter = .{ .wait = g, .tries = tries };
            p.lane.prepare(g);
            p.link(side, &waiter);
            const how = p.lane.park(g, reason, deadline);
            p.unlink(side, &waiter, how == .ready or how == .closed);
            return how;
        }

        /// Between the lane's `prepare` and `park`.
        pub fn link(p: *Self, side: *Side, waiter: *Waiter) void {
            side.waiters.push(waiter);
            if (!waiter.wait.system) p.lane.net_waiters += 1;
        }

        /// After `park`. One that has `fired` is in no list any more.
        pub fn unlink(p: *Self, side: *Side, waiter: *Waiter, fired: bool) void {
            if (!waiter.wait.system) p.lane.net_waiters -= 1;
            if (!fired) side.waiters.remove(waiter);
        }

        /// After an attempt: `more` if the next one may succeed too.
        pub inline fn settle(p: *Self, d: *Desc, side: *Side, more: bool) void {
            const waiters = d.settle(side, more);
            if (waiters.head != null) p.wake(waiters);
        }

        fn wake(p: *Self, waiters: Desc.Woken) void {
            var left = waiters;
            while (left.pop()) |w| {
                p.lane.counters.netpoll_wakeups += 1;
                p.lane.readyLast(w.wait);
            }
        }

        // ---- for Descs.deliver ----

        pub fn woken(p: *Self, d: *Desc, e: netpoll.Ready, waiters: Desc.Woken) void {
            if (p.lane.ring.wants(.netpoll_ready)) {
                const mode = @as(u32, @intFromBool(e.read)) | @as(u32, @intFromBool(e.write)) << 1;
                const first = waiters.head.?.wait;
                p.lane.record(.netpoll_ready, first.id, @intCast(d.fd.number()), mode);
            }
            p.wake(waiters);
        }

        pub fn unknown(p: *Self, e: netpoll.Ready) void {
            if (e.tag == netpoll.signal_tag) {
                p.lane.signalCame();
                return;
            }
            // Of one that was closed meanwhile, unless the backend's own descriptors are not there.
            p.backend().verify();
        }

        // ---- waiting ----

        /// Waits without the lock; `results` delivers with it. `timeout_ns` null is for ever.
        pub fn wait(p: *Self, timeout_ns: ?u64) netpoll.WaitResult {
            return p.backend().wait(&p.waited, &p.waited_len, timeout_ns);
        }

        pub fn results(p: *Self) void {
            p.descs.deliver(p.waited[0..p.waited_len], p);
            p.waited_len = 0;
        }

        /// Looks and delivers, without waiting. Runs on the stacks of goroutines, on which nothing
        /// large may lie.
        pub noinline fn now(p: *Self) void {
            var len: usize = 0;
            _ = p.backend().wait(&p.looked, &len, 0);
            p.descs.deliver(p.looked[0..len], p);
        }
    };
}
