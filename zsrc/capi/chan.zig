//! Channels and select of the C ABI.
//!
//! A waiter lies on the stack of the call that waits, and so do the cases of a select unless they
//! are many.
const std = @import("std");
const os = @import("../os/os.zig");
const lane = @import("../parallel/lane.zig");
const sync = @import("sync.zig");
const chan_mod = @import("../sync/chan.zig");
const select_mod = @import("../sync/select.zig");
const capi = @import("capi.zig");
const WaitReason = @import("../serial/g.zig").WaitReason;

const switching = lane.switching;
const G = lane.G;
const Caller = capi.Caller;
const code = capi.code;
const limit = capi.limit;
pub const Chan = chan_mod.Chan(switching.Rt, null);
const Case = Chan.Case;
const Locks = select_mod.Locks(switching.Rt, Case);
const Select = select_mod.Select(switching.Rt, Case, Locks);

const most_cases = 1024;
/// What a channel of elements without size sends.
var nothing: [1]u8 = .{0};

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

inline fn transfer(
    comptime side: chan_mod.Side,
    c: ?*Chan,
    elem: ?[*]u8,
    deadline: ?u64,
) c_int {
    const caller: Caller = .enter();
    defer caller.leave();
    const chan = c orelse return waitForever(caller.g, deadline);
    if (side == .send and elem == null and chan.elem_size > 0) return code(.invalid);
    const place = if (side == .send) elem orelse &nothing else elem;
    return codeOf(chan.transfer(side, place, caller.g, deadline));
}

inline fn codeOf(outcome: chan_mod.Outcome) c_int {
    return switch (outcome) {
        .done => 0,
        .closed => code(.closed),
        .would_block => code(.would_block),
        .timeout, .interrupted => code(.timeout),
    };
}

/// A channel that is NULL never becomes ready.
noinline fn waitForever(g: ?*G, deadline: ?u64) c_int {
    if (deadline == 0) return code(.would_block);
    var nobody: sync.Semaphore = .{};
    _ = nobody.acquire(g, 1, deadline);
    return code(.timeout);
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
    if (n > most_cases or (n > 0 and cases == null)) return code(.invalid);
    const given: []CCase = if (n == 0) &.{} else cases.?[0..n];
    for (given) |each| {
        if (each.dir != 1 and each.dir != 2) return code(.invalid);
        const c = each.chan orelse continue;
        if (each.dir == 1 and each.elem == null and c.elem_size > 0) return code(.invalid);
    }
    const caller: Caller = .enter();
    defer caller.leave();
    if (n <= few_cases) {
        var few: Memory(few_cases) = undefined;
        return few.select(caller.g, given, limit(deadline));
    }
    const many = lane.gpa.create(Memory(most_cases)) catch return code(.no_memory);
    defer lane.gpa.destroy(many);
    return many.select(caller.g, given, limit(deadline));
}

fn Memory(comptime n: usize) type {
    return struct {
        cases: [n]Case,
        look: [n]u16,
        lock: [n]u16,

        inline fn select(m: *@This(), g: ?*G, given: []CCase, deadline: ?u64) c_int {
            const cases = m.cases[0..given.len];
            for (cases, given) |*case, *each| case.* = .{
                .chan = each.chan,
                .side = if (each.dir == 1) .send else .recv,
                .elem = if (each.dir == 1) each.elem orelse &nothing else each.elem,
            };
            const n_given = given.len;
            return selectFrom(g, given, cases, m.look[0..n_given], m.lock[0..n_given], deadline);
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

fn selectFrom(
    g: ?*G,
    given: []CCase,
    cases: []Case,
    order: []u16,
    lock_order: []u16,
    deadline: ?u64,
) c_int {
    select_mod.shuffle(order, Random{ .g = g });
    var locks: Locks = .{ .cases = cases, .order = lock_order };
    const selected = if (deadline == 0)
        Select.poll(cases, order, &locks) orelse return code(.would_block)
    else
        Select.wait(g, cases, order, &locks, reasonOf(cases), deadline);
    const result = codeOf(selected.outcome);
    if (selected.outcome == .timeout) return result;
    given[selected.index].result = result;
    return @intCast(selected.index);
}

inline fn reasonOf(cases: []const Case) WaitReason {
    return if (cases.len == 0) .select_no_cases else .select;
}
