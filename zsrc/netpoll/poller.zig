//! A lane's poller: its backend, its descriptors, and how an event finds the right one.
//!
//! Descriptors lie in blocks that are never freed, also not at the end of a run: an event or a
//! program may come with the tag of one that is closed at any time. A tag is a descriptor's index
//! and generation. No two opens have the same one, so that a stale one is told from its successor
//! for ever. It is odd, and 1 is where no address of an object has a bit, so that the native lane
//! gives it to programs in place of a pointer.
//!
//! `Rt` is that of desc.zig, with `Backend`, which models have another of.
const std = @import("std");
const os = @import("../os/os.zig");
const netpoll = @import("netpoll.zig");
const desc = @import("desc.zig");

const most = 1 << desc.refs_bits;

comptime {
    std.debug.assert(@bitSizeOf(desc.Generation) + desc.generation_shift == 64);
}

pub fn Poller(comptime Rt: type) type {
    const block_size = 64;
    return Sized(Rt, block_size, most / block_size);
}

/// Models have a few descriptors only.
pub fn Sized(comptime Rt: type, comptime block_size: u32, comptime most_blocks: u32) type {
    return struct {
        const Self = @This();
        const Env = Rt.Env;
        const planted = if (@hasDecl(Env, "planted")) Env.planted else .none;
        pub const Desc = desc.Desc(Rt);

        const Block = [block_size]Desc;

        backend: Rt.Backend = undefined,
        blocks: [most_blocks]Env.Atomic(?*Block) = @splat(.init(null)),
        count: u32 = 0,
        free: ?*Desc = null,
        /// Guards `free`, `count` and the making of blocks.
        lock: Rt.Lock = .{},
        registered: Env.Atomic(u32) = .init(0),

        pub fn init(p: *Self) netpoll.InitError!void {
            p.backend = try Rt.Backend.init();
        }

        /// Whether anything is registered.
        pub inline fn wanted(p: *const Self) bool {
            return p.registered.load(.monotonic) > 0;
        }

        pub inline fn tagOf(d: *const Desc, generation: desc.Generation) u64 {
            return @as(u64, generation) << desc.generation_shift | @as(u64, d.index) << 1 | 1;
        }

        pub inline fn generationOf(tag: u64) desc.Generation {
            return @intCast(tag >> desc.generation_shift);
        }

        /// Null if no descriptor has ever had this tag.
        pub inline fn descOf(p: *Self, tag: u64) ?*Desc {
            const index: usize = @intCast(tag >> 1 & (most - 1));
            if (tag & 1 == 0 or index >= most_blocks * block_size) return null;
            const block = p.blocks[index / block_size].load(.acquire) orelse return null;
            return &block[index % block_size];
        }

        /// Makes a descriptor for a file, and returns its tag. The caller adds it to the backend,
        /// or closes it again.
        pub fn make(p: *Self, gpa: std.mem.Allocator, fd: os.Handle) TakeError!u64 {
            const d = try p.take(gpa);
            _ = p.registered.fetchAdd(1, .seq_cst);
            return tagOf(d, d.open(fd));
        }

        const TakeError = error{ OutOfMemory, SystemLimit };

        fn take(p: *Self, gpa: std.mem.Allocator) TakeError!*Desc {
            p.lock.lock();
            defer p.lock.unlock();
            Env.writes(&p.free);
            if (p.free) |d| {
                p.free = d.next_free;
                return d;
            }
            if (p.count == block_size * most_blocks) return error.SystemLimit;
            const slot = &p.blocks[p.count / block_size];
            const block = slot.load(.monotonic) orelse new: {
                const block = gpa.create(Block) catch return error.OutOfMemory;
                block.* = @splat(.{});
                // Release pairs with the acquire in `descOf`.
                slot.store(block, .release);
                break :new block;
            };
            const d = &block[p.count % block_size];
            d.index = p.count;
            p.count += 1;
            return d;
        }

        /// After a close, when no call is inside any more and the file is nothing to the lane.
        pub fn release(p: *Self, d: *Desc) void {
            p.giveBack(d);
            _ = p.registered.fetchSub(1, .seq_cst);
        }

        fn giveBack(p: *Self, d: *Desc) void {
            if (!d.recycle()) return;
            if (planted != .given_back_unlocked) p.lock.lock();
            defer if (planted != .given_back_unlocked) p.lock.unlock();
            Env.writes(&p.free);
            d.next_free = p.free;
            p.free = d;
        }

        /// In the child of a fork, where no other call is inside, and after a run, when its waiters
        /// are gone: all handles are closed. The files are left as they are.
        pub fn forget(p: *Self) void {
            p.backend.deinit();
            p.registered.store(0, .monotonic);
            p.lock = .{};
            p.free = null;
            for (0..p.count) |i| {
                const d = p.at(i).?;
                d.lock = .{};
                d.closer = null;
                p.giveBack(d);
            }
        }

        /// By index; null if its block is just being made.
        pub fn at(p: *Self, index: usize) ?*Desc {
            const block = p.blocks[index / block_size].load(.acquire) orelse return null;
            return &block[index % block_size];
        }

        /// Calls `context.woken(d, event, waiters)` for those that events wake, and
        /// `context.unknown(event)` for an event that is of no open file of this lane.
        pub fn deliver(p: *Self, events: []const netpoll.Ready, context: anytype) void {
            for (events) |e| {
                const d = p.descOf(e.tag) orelse {
                    context.unknown(e);
                    continue;
                };
                const generation = generationOf(e.tag);
                const woken = d.edge(generation, e);
                if (woken.head != null) {
                    context.woken(d, e, woken);
                } else if (d.present() != generation) context.unknown(e);
            }
        }
    };
}
