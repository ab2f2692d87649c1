//! Goroutine stacks: equal pieces of large reserved slabs, each with a guard page at its low end.
//!
//! Reserving costs address space only; a page is committed by its first touch. The order of the
//! pieces in a slab puts the guard of one next to the hot end of the one below, so that both share
//! a page-table page. They are an odd number of pages apart: were it a power of two, all hot ends
//! would compete for the same few entries of the processor's caches of translations, and of the
//! cache lines that hold the page-table entries (1000 goroutines that take turns: 91 ns a turn, 72
//! with a page more). Free stacks are reused last-in first-out, since the last one is warm. At most
//! `keep` free stacks stay resident; the pages of further ones go back to the system at once, their
//! address space stays. All calls need the lane's lock.
const std = @import("std");
const os = @import("../os/os.zig");
const Stack = @import("g.zig").Stack;
const Allocator = std.mem.Allocator;

/// The reserve of a stack of this size: its lowest part, which faults as the guard does until the
/// host opens it. A host that can tell the program of an overflow has it as its room for that.
pub fn reserveSize(size: usize) usize {
    return std.mem.alignForward(usize, @min(128 * 1024, size / 8), os.page_size);
}

/// The guard of a stack of this size.
pub fn guardSize(size: usize) usize {
    return std.mem.alignForward(usize, @min(64 * 1024, size / 16), os.page_size);
}

pub const Pool = struct {
    gpa: Allocator,
    /// Bytes a stack, guard included.
    size: usize,
    /// Bytes from one to the next.
    stride: usize,
    /// Bytes at the low end that fault: more than the largest frame that C code makes unprobed.
    guard_size: usize,
    /// As many above them are a part of the stack that faults too.
    reserve_size: usize = 0,
    /// Free stacks that may stay resident.
    keep: usize,
    slabs: std.ArrayList(Slab) = .empty,
    /// Stacks that were used before; the resident ones are on top.
    warm: std.ArrayList(usize) = .empty,
    cold: std.ArrayList(usize) = .empty,
    /// The part of the newest slab that has not been used yet.
    fresh: usize = 0,
    fresh_end: usize = 0,
    /// Stacks that goroutines use now.
    in_use: usize = 0,
    /// A stack to discard once its last user has left it.
    leaving: ?usize = null,

    const Slab = struct { base: [*]align(4096) u8, size: usize };

    const first_slab = 64;
    const largest_slab = 4096;

    pub fn init(gpa: Allocator, size: usize, keep: usize) Pool {
        std.debug.assert(size % os.page_size == 0 and size >= 4 * os.page_size);
        const stride = size + if (size / os.page_size % 2 == 0) os.page_size else 0;
        return .{
            .gpa = gpa,
            .size = size,
            .stride = stride,
            .guard_size = stride - size + guardSize(size),
            .keep = keep,
        };
    }

    /// Every stack must be back.
    pub fn deinit(p: *Pool) void {
        std.debug.assert(p.in_use == 0);
        for (p.slabs.items) |slab| os.release(slab.base, slab.size);
        p.slabs.deinit(p.gpa);
        p.warm.deinit(p.gpa);
        p.cold.deinit(p.gpa);
        p.* = undefined;
    }

    pub fn get(p: *Pool) Allocator.Error!Stack {
        const base = p.warm.pop() orelse try p.reopen() orelse p.takeLeaving() orelse try p.carve();
        p.in_use += 1;
        return .{ .lo = base + p.guard_size, .size = p.stride - p.guard_size };
    }

    /// The caller may still run on the stack, if it leaves it before it lets the lock go.
    pub fn put(p: *Pool, stack: Stack) void {
        const base = stack.lo - p.guard_size;
        p.in_use -= 1;
        if (p.warm.items.len < p.keep) {
            // `carve` reserved room for every stack that exists.
            p.warm.appendAssumeCapacity(base);
        } else {
            if (p.leaving) |left| p.cool(left);
            p.leaving = base;
        }
    }

    fn cool(p: *Pool, base: usize) void {
        os.discard(@ptrFromInt(base + p.guard_size), p.stride - p.guard_size);
        p.cold.appendAssumeCapacity(base);
    }

    /// Whether the stack is one of this pool's.
    pub fn has(p: *const Pool, stack: Stack) bool {
        for (p.slabs.items) |slab| {
            if (stack.lo -% @intFromPtr(slab.base) < slab.size) return true;
        }
        return false;
    }

    pub fn free(p: *const Pool) usize {
        return p.warm.items.len + p.cold.items.len + @intFromBool(p.leaving != null);
    }

    /// A cold stack.
    fn reopen(p: *Pool) Allocator.Error!?usize {
        const base = p.cold.getLastOrNull() orelse return null;
        try os.openStack(base + p.guard_size, base + p.stride);
        _ = p.cold.pop();
        return base;
    }

    fn takeLeaving(p: *Pool) ?usize {
        defer p.leaving = null;
        return p.leaving;
    }

    fn carve(p: *Pool) Allocator.Error!usize {
        if (p.fresh == p.fresh_end) try p.grow();
        const base = p.fresh;
        try os.guard(@ptrFromInt(base), p.guard_size + p.reserve_size);
        try os.openStack(base + p.guard_size, base + p.stride);
        p.fresh += p.stride;
        return base;
    }

    fn grow(p: *Pool) Allocator.Error!void {
        const total = p.in_use + p.free();
        const count = std.math.clamp(total, first_slab, largest_slab);
        try p.slabs.ensureUnusedCapacity(p.gpa, 1);
        try p.warm.ensureTotalCapacity(p.gpa, @min(p.keep, total + count));
        try p.cold.ensureTotalCapacity(p.gpa, total + count);
        const size = count * p.stride;
        const base = try os.reserve(size);
        p.slabs.appendAssumeCapacity(.{ .base = base, .size = size });
        p.fresh = @intFromPtr(base);
        p.fresh_end = p.fresh + size;
    }
};

test "stacks are writable, reused and bounded" {
    const size = 16 * os.page_size;
    var pool = Pool.init(std.testing.allocator, size, 1);
    defer pool.deinit();
    const a = try pool.get();
    const b = try pool.get();
    try std.testing.expectEqual(17 * os.page_size, b.lo - a.lo);
    for ([_]Stack{ a, b }) |s| {
        // The hot end: on Windows a stack grows only under the thread that runs on it.
        @as(*u8, @ptrFromInt(s.hi() - 1)).* = 2;
    }
    const c = try pool.get();
    pool.put(a);
    pool.put(b);
    pool.put(c);
    try std.testing.expectEqual(3, pool.free());
    try std.testing.expectEqual(1, pool.warm.items.len);
    const again = try pool.get();
    try std.testing.expectEqual(a.lo, again.lo);
    const discarded = try pool.get();
    try std.testing.expectEqual(b.lo, discarded.lo);
    try std.testing.expectEqual(0, @as(*u8, @ptrFromInt(discarded.hi() - 1)).*);
    try std.testing.expectEqual(c.lo, (try pool.get()).lo);
    pool.put(again);
    pool.put(discarded);
    pool.put(c);
}
