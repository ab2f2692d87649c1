//! The memory of the native lane, but for stacks. Nothing of it comes from malloc, since a stopped
//! goroutine may hold malloc's locks.
//!
//! The allocator keeps its free lists by thread, so it reads a thread-local. Compilers compute the
//! address of one once a function and keep it across calls; after a call that switches, the
//! goroutine may be on another thread, and would use the lists of the first while that one does.
//! Here nothing of the allocator is ever inlined, so that a function that allocates and switches,
//! as select with many cases, holds no such address. (golibx_chan_free did, with the allocator's
//! own functions.)
const std = @import("std");
const Allocator = std.mem.Allocator;
const Alignment = std.mem.Alignment;

pub const gpa: Allocator = .{ .ptr = undefined, .vtable = &.{
    .alloc = alloc,
    .resize = resize,
    .remap = remap,
    .free = free,
} };

const smp = std.heap.smp_allocator;

noinline fn alloc(_: *anyopaque, len: usize, alignment: Alignment, caller: usize) ?[*]u8 {
    return smp.vtable.alloc(smp.ptr, len, alignment, caller);
}

noinline fn resize(
    _: *anyopaque,
    memory: []u8,
    alignment: Alignment,
    len: usize,
    caller: usize,
) bool {
    return smp.vtable.resize(smp.ptr, memory, alignment, len, caller);
}

noinline fn remap(
    _: *anyopaque,
    memory: []u8,
    alignment: Alignment,
    len: usize,
    caller: usize,
) ?[*]u8 {
    return smp.vtable.remap(smp.ptr, memory, alignment, len, caller);
}

noinline fn free(_: *anyopaque, memory: []u8, alignment: Alignment, caller: usize) void {
    smp.vtable.free(smp.ptr, memory, alignment, caller);
}
