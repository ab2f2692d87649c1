//! The files of the native lane: calls on them, what they wait for, and how they are closed.
//!
//! Descriptors and the poller are those of all lanes (zsrc/netpoll/desc.zig, poller.zig), with
//! locks. Descriptors stay also for the runtime that is started after this one. At most one M waits
//! in the poller (proc.zig); others may look.
//!
//! A program holds no pointer but a `Handle`: a tag. One that was kept for too long is told from
//! its successor for ever.
const std = @import("std");
const os = @import("../os/os.zig");
const env = @import("env.zig");
const lane = @import("lane.zig");
const netpoll = @import("../netpoll/netpoll.zig");
const poller_mod = @import("../netpoll/poller.zig");
const pollside = @import("pollside.zig");
const events = @import("events.zig");
const switching = lane.switching;

const Poller = poller_mod.Poller(pollside.Rt(struct {
    pub const Env = env.Real;
    pub const Backend = netpoll.Backend;
}));
pub const Desc = Poller.Desc;

/// A tag, in place of an address.
pub const Handle = opaque {
    inline fn of(tag: u64) *Handle {
        return @ptrFromInt(tag);
    }

    inline fn tagOf(h: *Handle) u64 {
        return @intFromPtr(h);
    }
};

var poller: Poller = .{};
var looking: env.SpinLock = .{};
var looked: [netpoll.batch]netpoll.Ready = undefined;
var waited: [netpoll.batch]netpoll.Ready = undefined;
/// Edges that are being delivered. Counted for the detection of deadlocks only.
var delivering: std.atomic.Value(u32) = .init(0);

pub fn init() netpoll.InitError!void {
    try poller.init();
}

/// After the scheduler's end. Closes what is still open; the files are left as they are.
pub fn deinit() void {
    // A thread that is inside a call may open another.
    while (wanted()) {
        for (0..poller.count) |i| {
            const d = poller.at(i) orelse break;
            if (d.openGeneration()) |g| _ = close(.of(Poller.tagOf(d, g)), false);
        }
    }
    poller.backend.deinit();
}

/// In the child of a fork, which has the descriptors, but not the threads that were inside calls.
pub fn forget() void {
    looking = .{};
    poller.forget();
}

/// Whether anything is registered.
pub inline fn wanted() bool {
    return poller.wanted();
}

pub fn wake() void {
    poller.backend.wake();
}

pub fn open(fd: os.Handle) netpoll.AddError!*Handle {
    const tag = try poller.make(lane.gpa, fd);
    poller.backend.add(fd, tag, .both) catch |err| {
        _ = finish(.of(tag), .not_added);
        return err;
    };
    lane.sched.firstPollable();
    return .of(tag);
}

/// A call of a goroutine inside the runtime begins: null if the handle is closed. Until `decref`
/// the file stays open.
pub inline fn incref(h: *Handle) ?*Desc {
    const d = poller.descOf(h.tagOf()) orelse return null;
    return if (d.incref(Poller.generationOf(h.tagOf()))) d else null;
}

/// The call ends, without a change of errno.
pub inline fn decref(d: *Desc) void {
    if (d.decref()) wakeCloser(d);
}

noinline fn wakeCloser(d: *Desc) void {
    @branchHint(.cold);
    const errno = os.net.getErrno();
    switching.Rt.wake(d.takeCloser());
    os.net.setErrno(errno);
}

/// Returns when no call on the handle is left inside. False if it is closed already.
pub fn close(h: *Handle, close_file: bool) bool {
    return finish(h, if (close_file) .close_file else .leave_file);
}

fn finish(h: *Handle, how: enum { not_added, leave_file, close_file }) bool {
    const d = poller.descOf(h.tagOf()) orelse return false;
    var woken = d.close(Poller.generationOf(h.tagOf())) orelse return false;
    if (how != .not_added) poller.backend.remove(d.fd);
    while (woken.pop()) |w| switching.Rt.wake(w.wait);
    var b: switching.Blocker = undefined;
    b.init(switching.current(), false);
    if (d.drain(&b.wait) == .waiting) _ = b.block(.io_close, null, unlock, d);
    if (how == .close_file) os.net.close(d.fd);
    poller.release(d);
    return true;
}

pub const WaitResult = enum { ready, closed, busy, timeout };

/// Waits, inside a call, until an attempt may succeed.
pub fn wait(d: *Desc, write: bool, deadline: ?u64) WaitResult {
    const g = switching.current();
    var b: switching.Blocker = undefined;
    b.init(g, true); // an edge, a close and a deadline compete
    const side = if (write) &d.write else &d.read;
    var waiter: Desc.Waiter = .{ .wait = &b.wait };
    switch (d.begin(side, &waiter)) {
        .ready => return .ready,
        .closed => return .closed,
        .busy => return .busy,
        .waiting => {},
    }
    switch (b.block(if (write) .io_write else .io_read, deadline, unlock, d)) {
        .ready => return .ready,
        .closed => return .closed,
        .timeout, .interrupted => {
            d.withdraw(side, &waiter);
            return .timeout;
        },
    }
}

fn unlock(raw: *anyopaque) bool {
    const d: *Desc = @ptrCast(@alignCast(raw));
    d.lock.unlock();
    return true;
}

/// Looks, for delay 0, or waits that long, or for ever; adds those that can go on to `out`.
pub fn poll(delay_ns: ?u64, out: *lane.Batch) void {
    var len: usize = 0;
    if (delay_ns == 0) {
        // One that looks is enough.
        if (!looking.tryLock()) return;
        defer looking.unlock();
        _ = poller.backend.wait(&looked, &len, 0);
        return deliver(looked[0..len], out);
    }
    _ = poller.backend.wait(&waited, &len, delay_ns);
    deliver(waited[0..len], out);
}

fn deliver(edges: []const netpoll.Ready, out: *lane.Batch) void {
    const counted = lane.options.detect_deadlock and edges.len > 0;
    if (counted) _ = delivering.fetchAdd(1, .seq_cst);
    defer if (counted) {
        _ = delivering.fetchSub(1, .seq_cst);
    };
    poller.deliver(edges, Delivery{ .out = out });
}

const Delivery = struct {
    out: *lane.Batch,

    pub fn woken(c: Delivery, d: *Desc, e: netpoll.Ready, waiters: Desc.Woken) void {
        var left = waiters;
        while (left.pop()) |waiter| {
            const w = waiter.wait;
            if (w.g) |raw| {
                const g: *lane.G = @ptrCast(@alignCast(raw));
                if (events.wantsAny(&.{ .netpoll_ready, .goroutine_ready })) noteReady(g, d.fd, e);
                g.transition(.waiting, .runnable);
                c.out.push(g);
            } else w.wake(w);
        }
    }

    /// Of one that was closed meanwhile.
    pub fn unknown(_: Delivery, _: netpoll.Ready) void {}
};

/// Whether a goroutine waits for a descriptor, or is being woken from that. For a caller that has
/// seen all Ps idle.
pub fn mayWake() bool {
    poller.lock.lock();
    const n = poller.count;
    poller.lock.unlock();
    for (0..n) |i| {
        const d = poller.at(i) orelse return true;
        d.lock.lock();
        defer d.lock.unlock();
        if (d.read.waiters.head != null or d.write.waiters.head != null) return true;
    }
    // After those: one that is no waiter any more is counted here until it is runnable.
    return delivering.load(.seq_cst) > 0;
}

noinline fn noteReady(g: *lane.G, fd: os.Handle, e: netpoll.Ready) void {
    @branchHint(.cold);
    const mode: u32 = @as(u32, @intFromBool(e.read)) | @as(u32, @intFromBool(e.write)) << 1;
    events.recordShared(.netpoll_ready, g.id, @intCast(@max(0, fd.number())), mode);
    events.recordShared(.goroutine_ready, g.id, 0, 0);
}
