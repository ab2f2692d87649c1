//! Where the frames of a goroutine's Python code lie.
//!
//! A thread state has a data stack for them, of chunks of 16 KiB that the interpreter maps one by
//! one. Most goroutines use some hundred bytes of it: that is a page, and a system call, for each.
//! So a goroutine's first chunk is a small one at the top of its C stack. The first page of that
//! stack holds both: in a goroutine that waits, calls use 1.4 KiB (3.11) to 2.1 KiB (3.15) of it.
//!
//! The interpreter never frees the first chunk before the thread state. A second one is mapped when
//! the first is full, and unmapped when the last of its frames has gone, which may happen at each
//! turn of a loop that calls a function: so some chunks are kept. The functions that map and unmap
//! are those for the interpreter's arenas, which it lets any code replace.
//! golibx finds the words of a thread state that have the data stack by having a function called:
//! they are null before, and known after it. Layout and rules: Python/pystate.c, the same from 3.11
//! to 3.15.
const std = @import("std");
const os = @import("../../os/os.zig");
const py = @import("../py.zig");
const host = @import("host.zig");
const Lock = @import("../../serial/lock.zig").Lock;
const Stack = @import("../../serial/g.zig").Stack;

/// Of the first chunk, bytes. All others are larger.
pub const first_size = 1792;
/// It may be less by so many cache lines minus one. What a switch touches would lie at the same
/// place of every goroutine's page else, and a cache has room for a few hundred lines of one place
/// only, whatever is free elsewhere. Each line is one less for frames in that page.
const places = 8;
const line = 64;

const Chunk = extern struct {
    previous: ?*Chunk = null,
    size: usize,
    /// Of the words below, how many are used, while another chunk is on top.
    top: usize = 0,

    fn words(c: *Chunk) [*]usize {
        return @ptrFromInt(@intFromPtr(c) + @sizeOf(Chunk));
    }
};

/// Three words of a thread state.
const Fields = extern struct { chunk: ?*Chunk, top: ?[*]usize, limit: ?*anyopaque };

/// In words; null until they are known.
var offset: ?usize = null;

inline fn fieldsOf(state: *py.ThreadState) ?*Fields {
    const words: [*]usize = @ptrCast(@alignCast(state));
    return @ptrCast(words + (offset orelse return null));
}

/// Stacks lie an odd number of pages apart.
inline fn sizeOn(stack: Stack) usize {
    return first_size - (stack.hi() / os.page_size) % places * line;
}

inline fn chunkOn(stack: Stack) *Chunk {
    return @ptrFromInt(stack.hi() - sizeOn(stack));
}

/// The first frames of a goroutine that is about to run.
pub inline fn prefetch(stack: Stack) void {
    const frames: [*]const u8 = @ptrCast(chunkOn(stack));
    inline for (0..3) |i| @prefetch(frames + i * line, .{});
}

/// Of a thread state that has no data stack yet.
pub fn place(state: *py.ThreadState, stack: Stack) void {
    const fields = fieldsOf(state) orelse return;
    if (fields.chunk != null) return;
    const chunk = chunkOn(stack);
    chunk.* = .{ .size = sizeOn(stack) };
    // The first word stays free: where the first frame of a chunk goes, it is unmapped.
    fields.* = .{ .chunk = chunk, .top = chunk.words() + 1, .limit = @ptrFromInt(stack.hi()) };
}

/// Where calls begin on the stack.
pub inline fn below(state: ?*py.ThreadState, stack: Stack) usize {
    const fields = fieldsOf(state orelse return stack.hi()) orelse return stack.hi();
    return stack.hi() - if (fields.chunk == chunkOn(stack)) sizeOn(stack) else 0;
}

/// Undoes `place`, when there are no frames any more.
pub fn takeAway(state: *py.ThreadState, stack: Stack) void {
    const fields = fieldsOf(state) orelse return;
    if (fields.chunk == chunkOn(stack)) fields.* = .{ .chunk = null, .top = null, .limit = null };
}

// ---- chunks that are kept ----

const chunk_size = 16 * 1024; // DATA_STACK_CHUNK_SIZE
const most_kept = 32;

var original: py.ArenaAllocator = undefined;
/// Subinterpreters may have a lock of their own, and allocate at the same time.
var lock: Lock = .{};
var kept: [most_kept]*anyopaque = undefined;
var kept_count: usize = 0;

fn alloc(_: ?*anyopaque, size: usize) callconv(.c) ?*anyopaque {
    if (size == chunk_size) {
        lock.lock();
        defer lock.unlock();
        if (kept_count > 0) {
            kept_count -= 1;
            return kept[kept_count];
        }
    }
    return original.alloc(original.context, size);
}

fn free(_: ?*anyopaque, memory: ?*anyopaque, size: usize) callconv(.c) void {
    // On the stack of a goroutine that has not ended: the interpreter frees its thread state at its
    // own end, and in the child of a fork.
    if (size <= first_size) return;
    if (size == chunk_size) {
        lock.lock();
        defer lock.unlock();
        if (kept_count < most_kept) {
            kept[kept_count] = memory.?;
            kept_count += 1;
            return;
        }
    }
    original.free(original.context, memory, size);
}

/// In the child of a fork: another thread may have held it.
pub fn renew() void {
    lock = .{};
}

// ---- where the words are ----

const most_words = 128;
var is_set_up = false;

/// Before the first run. False with an exception set.
pub fn setUp() bool {
    if (is_set_up) return true;
    const get = py.extra.PyObject_GetArenaAllocator orelse return true;
    const set = py.extra.PyObject_SetArenaAllocator orelse return true;
    const function = py.importFrom("threading", "main_thread") orelse return false;
    defer py.decref(function);
    const probe = py.PyThreadState_New(host.interpreter) orelse {
        _ = py.PyErr_NoMemory();
        return false;
    };
    const words = host.wordsOf(probe, most_words);
    const before = host.copyOf(most_words, words);
    const own = host.exchange(probe);
    if (py.call(function, &.{})) |result| py.decref(result) else py.PyErr_Clear();
    _ = host.exchange(own.?);
    offset = find(before[0..words.len], words);
    py.PyThreadState_Clear(probe);
    py.PyThreadState_Delete(probe);
    is_set_up = true;
    if (offset == null) return true;
    get(&original);
    set(&.{ .context = null, .alloc = alloc, .free = free });
    return true;
}

/// After a call the first chunk is empty but for the word that stays free.
fn find(before: []const usize, after: []const usize) ?usize {
    if (before.len < 3) return null;
    for (0..before.len - 2) |i| {
        const chunk = after[i];
        if (before[i] != 0 or before[i + 1] != 0 or before[i + 2] != 0 or chunk == 0) continue;
        if (after[i + 1] != chunk +% @sizeOf(Chunk) + @sizeOf(usize)) continue;
        if (after[i + 2] != chunk +% chunk_size) continue;
        var header: Chunk = undefined;
        if (!os.peek(chunk, std.mem.asBytes(&header))) continue;
        if (header.previous == null and header.size == chunk_size) return i;
    }
    return null;
}

pub fn isKnown() bool {
    return offset != null;
}
