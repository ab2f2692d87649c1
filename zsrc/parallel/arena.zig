//! The memory of goroutines: one reserved range of equal pieces, each a guard, a stack and the G.
//!
//! A piece is as large as a power of two and aligned to it, with the G at its high end, beside the
//! part of the stack that is always in use: a parked goroutine that calls little costs one page,
//! and the G of the running stack is found from the stack pointer without a thread-local, which a
//! goroutine that changes threads must not keep the address of. Reserving costs address space only.
//!
//! Free goroutines stay warm. sysmon gives the pages of those beyond a limit back to the system if
//! they were not needed for some seconds, a few at a time (`scavenge`): so bursts that come again
//! and again cost no system calls. The lists are under `lock`; each P keeps a few of its own
//! (`switching.zig`). They hold numbers, so that a thread that takes many does not fetch one cold
//! page to learn where the next is.
const std = @import("std");
const os = @import("../os/os.zig");
const env = @import("env.zig");
const stacks = @import("../serial/stack.zig");
const types = @import("types.zig");

const T = types.Types(env.Real, types.Call);
pub const G = T.G;
pub const Batch = T.Batch;

/// Room for the G, so that the stack below starts on a cache line of its own.
pub const g_size = std.mem.alignForward(usize, @sizeOf(G), 64);

const largest_reserve = 1 << 40;

pub const Arena = struct {
    base: usize = 0,
    size: usize = 0,
    /// Bytes a piece; a power of two.
    piece: usize = 0,
    mask: usize = 0,
    guard: usize = 0,
    lock: env.SpinLock = .{},
    /// Pieces up to here were used at some time.
    fresh: usize = 0,
    /// Numbers of the free pieces, those used last at the end; there is room for all that are
    /// `fresh`.
    warm: std.ArrayList(u32) = .empty,
    keep: usize = 0,
    /// The fewest that were warm since `scavenged_at`.
    low_water: usize = 0,
    scavenged_at: u64 = 0,
    /// How many have yet to be scavenged this time. sysmon's.
    surplus: usize = 0,
    /// Numbers of the pieces that gave their pages back.
    cold: std.ArrayList(u32) = .empty,
    /// A piece below `fresh` could not be opened: its memory must not be looked at.
    has_holes: bool = false,
    memory: []align(4096) u8 = &.{},

    const gpa = std.heap.page_allocator;

    pub fn init(piece: usize, keep_bytes: usize) error{OutOfMemory}!Arena {
        std.debug.assert(std.math.isPowerOfTwo(piece) and piece >= 4 * os.page_size);
        var size: usize = largest_reserve;
        const pages = while (size >= 64 * piece) : (size /= 2) {
            break os.reserve(size) catch continue;
        } else return error.OutOfMemory;
        const base = std.mem.alignForward(usize, @intFromPtr(pages), piece);
        return .{
            .memory = pages[0..size],
            .base = base,
            .size = (@intFromPtr(pages) + size - base) / piece * piece,
            .piece = piece,
            .mask = piece - 1,
            .guard = stacks.guardSize(piece),
            // Most warm ones have a page or two.
            .keep = @max(64, keep_bytes / (2 * os.page_size)),
        };
    }

    pub fn deinit(a: *Arena) void {
        os.release(a.memory.ptr, a.memory.len);
        a.warm.deinit(gpa);
        a.cold.deinit(gpa);
        a.* = .{};
    }

    /// The goroutine that has this address on its stack.
    pub inline fn find(a: *const Arena, address: usize) ?*G {
        if (address -% a.base >= a.size) return null;
        return @ptrFromInt((address | a.mask) + 1 - g_size);
    }

    pub inline fn lowEnd(a: *const Arena, g: *G) usize {
        return (@intFromPtr(g) & ~a.mask) + a.guard;
    }

    /// Up to `n` free goroutines, at least one.
    pub fn get(a: *Arena, n: usize) error{OutOfMemory}!Batch {
        const most = 64;
        const wanted = @min(n, most);
        var numbers: [most]u32 = undefined;
        var count: usize = 0;
        var first_cold: usize = 0;
        var first_new: usize = 0;
        var out: Batch = .{};
        {
            a.lock.lock();
            defer a.lock.unlock();
            while (count < wanted) : (count += 1) numbers[count] = a.warm.pop() orelse break;
            a.low_water = @min(a.low_water, a.warm.items.len);
            first_cold = count;
            while (count < wanted) : (count += 1) numbers[count] = a.cold.pop() orelse break;
            first_new = count;
            while (count < wanted) : (count += 1) numbers[count] = a.carve() catch break;
        }
        for (numbers[0..first_cold]) |number| out.push(a.at(number));
        // What takes system calls and page faults is done without the lock.
        for (numbers[first_cold..count], first_cold..) |number, i| {
            if (i >= first_new) a.open(number) catch {
                var last = count;
                while (last > i) : (last -= 1) a.giveBack(numbers[last - 1]);
                break;
            };
            const g = a.at(number);
            g.* = .{};
            out.push(g);
        }
        if (out.len == 0) return error.OutOfMemory;
        return out;
    }

    /// The number of a piece that has not been used yet.
    fn carve(a: *Arena) error{OutOfMemory}!u32 {
        if ((a.fresh + 1) * a.piece > a.size) return error.OutOfMemory;
        try a.warm.ensureTotalCapacity(gpa, a.fresh + 1);
        try a.cold.ensureTotalCapacity(gpa, a.fresh + 1);
        a.fresh += 1;
        return @intCast(a.fresh - 1);
    }

    fn open(a: *Arena, number: u32) error{OutOfMemory}!void {
        const lo = a.base + number * a.piece;
        try os.guard(@ptrFromInt(lo), a.guard);
        try os.openStack(lo + a.guard, lo + a.piece);
    }

    /// One that could not be opened; numbers come back highest first.
    fn giveBack(a: *Arena, number: u32) void {
        a.lock.lock();
        defer a.lock.unlock();
        if (number + 1 == a.fresh) a.fresh -= 1 else a.has_holes = true;
    }

    pub fn at(a: *const Arena, number: usize) *G {
        return @ptrFromInt(a.base + (number + 1) * a.piece - g_size);
    }

    /// Goroutines with stacks that no thread is on.
    pub fn put(a: *Arena, batch: *Batch) void {
        a.lock.lock();
        defer a.lock.unlock();
        while (batch.pop()) |g| a.warm.appendAssumeCapacity(a.numberOf(g));
    }

    inline fn numberOf(a: *const Arena, g: *const G) u32 {
        return @intCast((@intFromPtr(g) - a.base) / a.piece);
    }

    /// How long what is free stays warm at least, twice that at most: between Go's scavenger, which
    /// takes minutes, and jemalloc's dirty_decay_ms of 10 s.
    pub const scavenge_interval_ns = 5 * std.time.ns_per_s;
    const scavenge_batch = 256;

    /// sysmon's, each round. True if there is more to do soon.
    pub fn scavenge(a: *Arena, now: u64) bool {
        // Leave the lock to the threads that need stacks.
        if (a.surplus == 0 and (!a.hasSurplus() or now -| a.scavenged_at < scavenge_interval_ns))
            return false;
        var batch: [scavenge_batch]u32 = undefined;
        var n: usize = 0;
        {
            a.lock.lock();
            defer a.lock.unlock();
            if (now -| a.scavenged_at >= scavenge_interval_ns) {
                a.surplus = @min(a.low_water, a.warm.items.len -| a.keep);
                a.low_water = a.warm.items.len;
                a.scavenged_at = now;
            }
            // Those at the front have been free the longest; the order among the rest means less.
            const all = a.warm.items;
            n = @min(scavenge_batch, a.surplus, all.len);
            @memcpy(batch[0..n], all[0..n]);
            const moved = @min(n, all.len - n);
            @memcpy(all[0..moved], all[all.len - moved ..]);
            a.warm.shrinkRetainingCapacity(all.len - n);
            a.surplus -= n;
        }
        for (batch[0..n]) |number| {
            const lo = a.base + number * a.piece;
            os.discard(@ptrFromInt(lo + a.guard), a.piece - a.guard);
        }
        if (n == 0) return a.surplus > 0;
        a.lock.lock();
        defer a.lock.unlock();
        a.cold.appendSliceAssumeCapacity(batch[0..n]);
        return a.surplus > 0;
    }

    /// Whether `scavenge` may have something to do later.
    pub fn hasSurplus(a: *Arena) bool {
        return @atomicLoad(usize, &a.warm.items.len, .monotonic) > a.keep;
    }

    pub fn freeCount(a: *Arena) usize {
        a.lock.lock();
        defer a.lock.unlock();
        return a.warm.items.len + a.cold.items.len;
    }
};
