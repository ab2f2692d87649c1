//! The network poller of the native lane: descriptors, and what an edge of one wakes.
//!
//! At most one M waits in the poller (proc.zig); others may look. The backends are those of the
//! Python lane, with an instance of their own. Descriptors are never freed, only reused
//! (pollside.zig), also by the runtime that is started after this one.
//!
//! A program holds no pointer but a `Handle`: a descriptor's index and generation. No two opens
//! return the same, so that one that was kept for too long is told from its successor for ever; the
//! poller tags what it reports with it too.
const std = @import("std");
const os = @import("../os/os.zig");
const env = @import("env.zig");
const lane = @import("lane.zig");
const poller = @import("../netpoll/netpoll.zig");
const pollside = @import("pollside.zig");
const events = @import("events.zig");
const switching = lane.switching;

pub const Desc = pollside.PollDesc(switching.Rt);

const block_size = 64;
const most_blocks = 16 * 1024;

comptime {
    // An index fits where the state counts calls, above the bit that no address of an object has.
    std.debug.assert(block_size * most_blocks == 1 << pollside.refs_bits);
    std.debug.assert(@bitSizeOf(pollside.Generation) + pollside.generation_shift == 64);
}

/// `generation << 21 | index << 1 | 1`, in place of an address.
pub const Handle = opaque {
    fn of(d: *const Desc, generation: pollside.Generation) *Handle {
        const high = @as(u64, generation) << pollside.generation_shift;
        return @ptrFromInt(high | @as(u64, d.index) << 1 | 1);
    }

    inline fn generationOf(h: *Handle) pollside.Generation {
        return @intCast(@intFromPtr(h) >> pollside.generation_shift);
    }

    /// Null if no descriptor has ever had this handle.
    inline fn descOf(h: *Handle) ?*Desc {
        const low: u32 = @truncate(@intFromPtr(h));
        const index = low >> 1 & ((1 << pollside.refs_bits) - 1);
        const block = blocks[index / block_size].load(.acquire) orelse return null;
        return if (low & 1 == 1) &block[index % block_size] else null;
    }
};

var backend: poller.Backend = undefined;
var blocks: [most_blocks]std.atomic.Value(?*[block_size]Desc) = @splat(.init(null));
var desc_count: u32 = 0;
var free: ?*Desc = null;
/// Guards `free`, `desc_count` and the making of blocks.
var lock: env.SpinLock = .{};
var registered: std.atomic.Value(u32) = .init(0);
var looking: env.SpinLock = .{};
var looked: [poller.batch]poller.Ready = undefined;
var waited: [poller.batch]poller.Ready = undefined;
/// Edges that are being delivered. Counted for the detection of deadlocks only.
var delivering: std.atomic.Value(u32) = .init(0);

pub fn init() error{ OutOfMemory, SystemLimit }!void {
    backend = try poller.Backend.init();
}

/// After the scheduler's end. Closes what is still open; the files are left as they are.
pub fn deinit() void {
    // A thread that is inside a call may open another.
    while (registered.load(.acquire) > 0) {
        for (&blocks) |*slot| {
            for (slot.load(.acquire) orelse break) |*d| {
                if (d.openGeneration()) |generation| _ = close(.of(d, generation), false);
            }
        }
    }
    backend.deinit();
}

/// In the child of a fork, which has the descriptors, but not the threads that were inside calls.
pub fn forget() void {
    backend.deinit();
    registered.store(0, .monotonic);
    lock = .{};
    looking = .{};
    free = null;
    for (0..desc_count) |i| {
        const d = &blocks[i / block_size].raw.?[i % block_size];
        d.lock = .{};
        d.closer = null;
        giveBack(d);
    }
}

/// Whether anything is registered.
pub inline fn wanted() bool {
    return registered.load(.monotonic) > 0;
}

pub fn wake() void {
    backend.wake();
}

pub const OpenError = error{
    OutOfMemory,
    SystemLimit,
    NotPollable,
    BadDescriptor,
    InUse,
    Unsupported,
};

pub fn open(fd: os.Handle) OpenError!*Handle {
    const d = try take();
    const h: *Handle = .of(d, d.open(fd));
    _ = registered.fetchAdd(1, .seq_cst);
    backend.add(fd, @intFromPtr(h)) catch |err| {
        _ = finish(h, .not_added);
        return err;
    };
    lane.sched.firstPollable();
    return h;
}

fn take() error{ OutOfMemory, SystemLimit }!*Desc {
    lock.lock();
    defer lock.unlock();
    if (free) |d| {
        free = d.next_free;
        return d;
    }
    if (desc_count == block_size * most_blocks) return error.SystemLimit;
    const slot = &blocks[desc_count / block_size];
    const block = slot.raw orelse new: {
        const block = lane.gpa.create([block_size]Desc) catch return error.OutOfMemory;
        block.* = @splat(.{});
        // Release pairs with the acquire in `descOf`.
        slot.store(block, .release);
        break :new block;
    };
    const d = &block[desc_count % block_size];
    d.index = desc_count;
    desc_count += 1;
    return d;
}

fn giveBack(d: *Desc) void {
    if (!d.recycle()) return;
    lock.lock();
    defer lock.unlock();
    d.next_free = free;
    free = d;
}

/// A call begins, of who is inside the runtime: null if the handle is closed. Until `decref` the
/// file stays open.
pub inline fn incref(h: *Handle) ?*Desc {
    const d = h.descOf() orelse return null;
    return if (d.incref(h.generationOf())) d else null;
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
    const d = h.descOf() orelse return false;
    const woken = d.close(h.generationOf()) orelse return false;
    if (how != .not_added) backend.remove(d.fd);
    for (woken) |each| {
        if (each) |w| switching.Rt.wake(w);
    }
    var b: switching.Blocker = undefined;
    b.init(switching.current(), false);
    if (d.drain(&b.wait) == .waiting) _ = b.block(.io_close, null, unlock, d);
    if (how == .close_file) os.net.close(d.fd);
    giveBack(d);
    _ = registered.fetchSub(1, .seq_cst);
    return true;
}

pub const WaitResult = enum { ready, closed, busy, timeout };

/// Waits, inside a call, until an attempt may succeed.
pub fn wait(d: *Desc, write: bool, deadline: ?u64) WaitResult {
    const g = switching.current();
    var b: switching.Blocker = undefined;
    b.init(g, true); // an edge, a close and a deadline compete
    const side = if (write) &d.write else &d.read;
    switch (d.begin(side, &b.wait)) {
        .ready => return .ready,
        .closed => return .closed,
        .busy => return .busy,
        .waiting => {},
    }
    switch (b.block(if (write) .io_write else .io_read, deadline, unlock, d)) {
        .served => return .ready,
        .closed => return .closed,
        .timeout, .interrupted => {
            d.withdraw(side, &b.wait);
            return .timeout;
        },
    }
}

fn unlock(raw: *anyopaque) bool {
    const d: *Desc = @ptrCast(@alignCast(raw));
    d.lock.unlock();
    return true;
}

/// Looks, for delay 0, or waits that long, or for ever; adds who can go on to `out`.
pub fn poll(delay_ns: ?u64, out: *lane.Batch) void {
    var len: usize = 0;
    if (delay_ns == 0) {
        // One that looks is enough.
        if (!looking.tryLock()) return;
        defer looking.unlock();
        _ = backend.wait(&looked, &len, 0);
        return deliver(looked[0..len], out);
    }
    _ = backend.wait(&waited, &len, delay_ns);
    deliver(waited[0..len], out);
}

fn deliver(edges: []const poller.Ready, out: *lane.Batch) void {
    const counted = lane.options.detect_deadlock and edges.len > 0;
    if (counted) _ = delivering.fetchAdd(1, .seq_cst);
    defer if (counted) {
        _ = delivering.fetchSub(1, .seq_cst);
    };
    for (edges) |e| {
        const h: *Handle = @ptrFromInt(e.tag);
        const d = h.descOf() orelse continue;
        for (d.edge(h.generationOf(), e.read, e.write)) |each| {
            const w = each orelse continue;
            if (w.g) |raw| {
                const g: *lane.G = @ptrCast(@alignCast(raw));
                if (events.wantsAny(&.{ .netpoll_ready, .goroutine_ready })) noteReady(g, d.fd, e);
                g.transition(.waiting, .runnable);
                out.push(g);
            } else w.wake(w);
        }
    }
}

/// Whether somebody waits for a descriptor, or is being woken from that. For one who has seen all
/// Ps idle.
pub fn mayWake() bool {
    lock.lock();
    const n = desc_count;
    lock.unlock();
    for (0..n) |i| {
        const block = blocks[i / block_size].load(.acquire) orelse return true;
        const d = &block[i % block_size];
        d.lock.lock();
        defer d.lock.unlock();
        if (d.read.waiter != null or d.write.waiter != null) return true;
    }
    // After those: who is no waiter any more is counted here until he is runnable.
    return delivering.load(.seq_cst) > 0;
}

noinline fn noteReady(g: *lane.G, fd: os.Handle, e: poller.Ready) void {
    @branchHint(.cold);
    const mode: u32 = @as(u32, @intFromBool(e.read)) | @as(u32, @intFromBool(e.write)) << 1;
    events.recordShared(.netpoll_ready, g.id, @intCast(@max(0, fd.number())), mode);
    events.recordShared(.goroutine_ready, g.id, 0, 0);
}
