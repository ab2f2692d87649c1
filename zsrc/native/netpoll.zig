//! The network poller of the native lane: descriptors, and what an edge of one wakes.
//!
//! At most one M waits in the poller (proc.zig); others may look. The backends are those of the Python
//! lane, with an instance of their own. Descriptors are never freed, only reused.
const std = @import("std");
const env = @import("env.zig");
const lane = @import("lane.zig");
const poller = @import("../netpoll/netpoll.zig");
const pollside = @import("pollside.zig");
const events = @import("events.zig");
const switching = lane.switching;

pub const Desc = pollside.PollDesc(switching.Rt);

const block_size = 64;
const most_blocks = 16 * 1024;

var backend: poller.Backend = undefined;
var blocks: [most_blocks]std.atomic.Value(?*[block_size]Desc) = @splat(.init(null));
var desc_count: u32 = 0;
var free: ?*Desc = null;
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

pub fn deinit() void {
    backend.deinit();
    registered.store(0, .monotonic);
    free = null;
    desc_count = 0;
    for (&blocks) |*each| {
        const block = each.swap(null, .acq_rel) orelse break;
        lane.gpa.destroy(block);
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

pub fn open(fd: i32) OpenError!*Desc {
    lock.lock();
    const d = free orelse blk: {
        if (desc_count == block_size * most_blocks) {
            lock.unlock();
            return error.SystemLimit;
        }
        const slot = &blocks[desc_count / block_size];
        const block = slot.raw orelse new: {
            const block = lane.gpa.create([block_size]Desc) catch {
                lock.unlock();
                return error.OutOfMemory;
            };
            block.* = @splat(.{});
            // Release pairs with the acquire in `deliver`.
            slot.store(block, .release);
            break :new block;
        };
        const d = &block[desc_count % block_size];
        d.index = desc_count;
        desc_count += 1;
        break :blk d;
    };
    if (free == d) free = d.next_free;
    lock.unlock();
    d.open(fd);
    _ = registered.fetchAdd(1, .seq_cst);
    backend.add(fd, tag(d)) catch |err| {
        _ = d.close();
        release(d);
        return err;
    };
    // Nobody may be waiting for the network yet.
    if (lane.sched.lastpoll.load(.seq_cst) != 0) lane.sched.wakePSlow();
    return d;
}

fn tag(d: *const Desc) u64 {
    return @as(u64, d.seq) << 32 | d.index;
}

fn release(d: *Desc) void {
    _ = registered.fetchSub(1, .seq_cst);
    lock.lock();
    defer lock.unlock();
    d.next_free = free;
    free = d;
}

/// False if it is closed already. The file itself is the caller's.
pub fn close(d: *Desc) bool {
    const fd = d.fd;
    const woken = d.close() orelse return false;
    backend.remove(fd);
    for (woken) |each| {
        if (each) |w| switching.Rt.wake(w);
    }
    release(d);
    return true;
}

pub const WaitResult = enum { ready, closed, busy, timeout };

/// Waits until an attempt may succeed.
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
        const index: u32 = @truncate(e.tag);
        const block = blocks[index / block_size].load(.acquire) orelse continue;
        const d = &block[index % block_size];
        for (d.edge(@truncate(e.tag >> 32), e.read, e.write)) |each| {
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

/// Whether somebody waits for a descriptor, or is being woken from that. For one who has seen all Ps
/// idle.
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

noinline fn noteReady(g: *lane.G, fd: i32, e: poller.Ready) void {
    @branchHint(.cold);
    const mode: u32 = @as(u32, @intFromBool(e.read)) | @as(u32, @intFromBool(e.write)) << 1;
    events.recordShared(.netpoll_ready, g.id, @intCast(@max(0, fd)), mode);
    events.recordShared(.goroutine_ready, g.id, 0, 0);
}
