//! Channels and select of the C ABI.
//!
//! A waiter lies on the stack of the call that waits, and so do the cases of a select unless they
//! are many.
const std = @import("std");
const os = @import("../os/os.zig");
const lane = @import("lane.zig");
const sync = @import("sync.zig");
const chan_mod = @import("chan.zig");
const capi = @import("capi.zig");
const WaitReason = @import("../sched/g.zig").WaitReason;

const switching = lane.switching;
const G = lane.G;
const Caller = capi.Caller;
const code = capi.code;
const limit = capi.limit;
pub const Chan = chan_mod.Chan(switching.Rt);

pub fn new(elem_size: usize, capacity: usize) callconv(.c) ?*Chan {
    if (elem_size > chan_mod.largest_elem) return null;
    const bytes = std.math.mul(usize, elem_size, capacity) catch return null;
    if (bytes > std.math.maxInt(isize) / 2) return null;
    const caller: Caller = .enter();
    defer caller.leave();
    const memory = lane.gpa.alignedAlloc(
        u8,
        .fromByteUnits(chan_alignment),
        chan_header + bytes,
    ) catch return null;
    const c: *Chan = @ptrCast(memory.ptr);
    c.* = .{ .elem_size = @intCast(elem_size), .capacity = capacity };
    c.buffer = memory.ptr + chan_header;
    return c;
}

const chan_alignment = 64;
const chan_header = std.mem.alignForward(usize, @sizeOf(Chan), 16);

pub fn free(c: ?*Chan) callconv(.c) void {
    const chan = c orelse return;
    const caller: Caller = .enter();
    defer caller.leave();
    const memory: [*]align(chan_alignment) u8 = @ptrCast(@alignCast(chan));
    lane.gpa.free(memory[0 .. chan_header + chan.capacity * chan.elem_size]);
}

pub fn len(c: ?*Chan) callconv(.c) usize {
    const chan = c orelse return 0;
    const caller: Caller = .enter();
    defer caller.leave();
    return chan.len();
}

pub fn cap(c: ?*Chan) callconv(.c) usize {
    return (c orelse return 0).capacity;
}

fn unlockChan(raw: *anyopaque) bool {
    const c: *Chan = @ptrCast(@alignCast(raw));
    c.lock.unlock();
    return true;
}

inline fn transfer(
    comptime side: enum { send, recv },
    c: ?*Chan,
    elem: ?[*]u8,
    deadline: ?u64,
) c_int {
    const caller: Caller = .enter();
    defer caller.leave();
    const chan = c orelse return waitForever(caller.g, deadline);
    if (side == .send and elem == null and chan.elem_size > 0) return code(.invalid);
    var b: switching.Blocker = undefined;
    b.init(caller.g, deadline != null);
    var w: Chan.Waiter = .{ .who = &b.wait, .data = elem };
    const waiter = if (deadline == 0) null else &w;
    const result = if (side == .send)
        chan.beginSend(elem orelse @ptrCast(&w), waiter)
    else
        chan.beginRecv(elem, waiter);
    switch (result) {
        .done => return 0,
        .closed => return code(.closed),
        .waiting => if (deadline == 0) return code(.would_block),
    }
    switch (b.block(if (side == .send) .chan_send else .chan_receive, deadline, unlockChan, chan)) {
        .ready => return 0,
        .closed => return code(.closed),
        .timeout, .interrupted => {
            if (side == .send) chan.withdraw(.send, &w) else chan.withdraw(.recv, &w);
            return code(.timeout);
        },
    }
}

/// A channel that is NULL never becomes ready.
noinline fn waitForever(g: ?*G, deadline: ?u64) c_int {
    if (deadline == 0) return code(.would_block);
    var nobody: sync.Semaphore = .{};
    nobody.acquire(g, deadline) catch return code(.timeout);
    unreachable;
}

pub fn send(c: ?*Chan, elem: ?[*]u8) callconv(.c) c_int {
    return transfer(.send, c, elem, null);
}

pub fn recv(c: ?*Chan, elem: ?[*]u8) callconv(.c) c_int {
    return transfer(.recv, c, elem, null);
}

pub fn sendUntil(c: ?*Chan, elem: ?[*]u8, deadline: i64) callconv(.c) c_int {
    return transfer(.send, c, elem, limit(deadline));
}

pub fn recvUntil(c: ?*Chan, elem: ?[*]u8, deadline: i64) callconv(.c) c_int {
    return transfer(.recv, c, elem, limit(deadline));
}

pub fn close(c: ?*Chan) callconv(.c) c_int {
    const chan = c orelse return code(.invalid);
    const caller: Caller = .enter();
    defer caller.leave();
    return code(if (chan.close()) .ok else .closed);
}

const CCase = extern struct {
    chan: ?*Chan,
    dir: u32,
    result: i32,
    elem: ?[*]u8,
};

/// Up to this many cases lie on the stack.
const few_cases = 8;

pub fn select(cases: ?[*]CCase, n: usize, deadline: i64) callconv(.c) c_int {
    if (n > chan_mod.most_cases or (n > 0 and cases == null)) return code(.invalid);
    const given: []CCase = if (n == 0) &.{} else cases.?[0..n];
    for (given) |each| {
        if (each.dir != 1 and each.dir != 2) return code(.invalid);
        const c = each.chan orelse continue;
        if (each.dir == 1 and each.elem == null and c.elem_size > 0) return code(.invalid);
    }
    const caller: Caller = .enter();
    defer caller.leave();
    if (n <= few_cases) {
        var few: SelectMemory(few_cases) = undefined;
        return selectWith(caller.g, given, limit(deadline), few.select(n));
    }
    const many = lane.gpa.create(SelectMemory(chan_mod.most_cases)) catch return code(.no_memory);
    defer lane.gpa.destroy(many);
    return selectWith(caller.g, given, limit(deadline), many.select(n));
}

fn SelectMemory(comptime n: usize) type {
    return struct {
        cases: [n]Chan.Case,
        waiters: [n]Chan.Waiter,
        look: [n]u16,
        lock: [n]u16,

        inline fn select(m: *@This(), used: usize) Chan.Select {
            return .{
                .cases = m.cases[0..used],
                .waiters = m.waiters[0..used],
                .look_order = m.look[0..used],
                .lock_order = m.lock[0..used],
            };
        }
    };
}

/// The P's random numbers, or for a thread others.
const Random = struct {
    g: ?*G,

    pub fn random(r: Random, below: u32) u32 {
        if (r.g) |g| return g.m.?.p.?.random(below);
        const x = os.nanotime() *% 0x9E3779B97F4A7C15;
        return @intCast((x >> 32) % below);
    }
};

fn selectWith(g: ?*G, given: []CCase, deadline: ?u64, s: Chan.Select) c_int {
    for (s.cases, given) |*case, *each| case.* = .{
        .chan = each.chan,
        .send = each.dir == 1,
        .elem = each.elem,
    };
    var b: switching.Blocker = undefined;
    b.init(g, true);
    const chosen = switch (s.begin(if (deadline == 0) null else &b.wait, Random{ .g = g })) {
        .chosen => |at| {
            given[at].result = code(if (s.cases[at].closed) .closed else .ok);
            return @intCast(at);
        },
        .would_block => return code(.would_block),
        .waiting => blk: {
            var select_mutable = s;
            const reason: WaitReason = if (given.len == 0) .select_no_cases else .select;
            // Where no lock holds it back, a deadline may end the wait, and this frame, before the
            // unlocking.
            const unlock = if (s.hasChannel()) &unlockSelect else &unlockNothing;
            break :blk b.block(reason, deadline, unlock, &select_mutable);
        },
    };
    s.end();
    if (chosen == .timeout or chosen == .interrupted) return code(.timeout);
    const fired = s.fired(&b.wait);
    given[fired].result = code(if (chosen == .closed) .closed else .ok);
    return @intCast(fired);
}

fn unlockNothing(_: *anyopaque) bool {
    return true;
}

fn unlockSelect(raw: *anyopaque) bool {
    const s: *Chan.Select = @ptrCast(@alignCast(raw));
    s.unlockAll();
    return true;
}
