//! The os layer on Windows (10 and later), from kernel32 and ntdll.
//!
//! Stacks. Windows has no overcommit: a committed page counts against RAM plus page file whether
//! it is touched or not, so that 100 000 goroutines with 1 MiB committed each would ask for
//! 100 GiB. Pages are therefore only reserved, and a goroutine's stack grows as a thread's does:
//! its top is committed, a PAGE_GUARD page lies below, and the kernel moves that page down at each
//! hit. All the kernel knows of a stack are three fields of the thread's environment block
//! (StackBase, StackLimit, DeallocationStack), the same that fibers change and that the context
//! switch saves. Two things follow. A stack can only grow under the thread that runs on it, and
//! from the top down: `openStack` makes a first piece of it, `discard` takes all of it back. And
//! StackLimit must be exact, since compilers probe large frames down from it and exception
//! dispatch rejects frames below it: `stackLimit` looks it up for a stack that is used again.
//!
//! Overflow. The last pages of a stack are kept for the code that handles STATUS_STACK_OVERFLOW
//! (SetThreadStackGuarantee); the size belongs to the thread and holds for every stack it runs on.
//! Exceptions are delivered on the faulting stack, there is no alternate one. The handler is a
//! vectored one, since a search through frames ends at the goroutine's first and never reaches the
//! process's unhandled-exception filter.
const std = @import("std");
const builtin = @import("builtin");
const w = std.os.windows;
const ntdll = w.ntdll;
const os = @import("os.zig");
const waits = @import("windows_wait.zig");

pub const nanotime = waits.nanotime;
pub const sleepNs = waits.sleepNs;
pub const preciseSleep = waits.preciseSleep;
pub const promptWake = waits.promptWake;
pub const Promptness = waits.Promptness;
pub const futexWait = waits.futexWait;
pub const futexWake = waits.futexWake;

const HANDLE = w.HANDLE;
const infinite: u32 = 0xffff_ffff;

extern "kernel32" fn CreateThread(
    attributes: ?*anyopaque,
    stack_size: usize,
    start: *const fn (?*anyopaque) callconv(.winapi) u32,
    parameter: ?*anyopaque,
    flags: u32,
    id: ?*u32,
) callconv(.winapi) ?HANDLE;
extern "kernel32" fn ExitThread(code: u32) callconv(.winapi) noreturn;
extern "kernel32" fn CloseHandle(handle: HANDLE) callconv(.winapi) c_int;
extern "kernel32" fn WaitForSingleObject(handle: HANDLE, ms: u32) callconv(.winapi) u32;
extern "kernel32" fn TlsGetValue(index: u32) callconv(.winapi) ?*anyopaque;
extern "kernel32" fn TlsSetValue(index: u32, value: ?*anyopaque) callconv(.winapi) c_int;
extern "kernel32" fn VirtualAlloc(
    address: ?*anyopaque,
    size: usize,
    kind: u32,
    protection: u32,
) callconv(.winapi) ?*anyopaque;
extern "kernel32" fn VirtualFree(
    address: *anyopaque,
    size: usize,
    kind: u32,
) callconv(.winapi) c_int;
extern "kernel32" fn VirtualQuery(
    address: *const anyopaque,
    info: *MemoryInformation,
    size: usize,
) callconv(.winapi) usize;
extern "kernel32" fn SetThreadStackGuarantee(bytes: *u32) callconv(.winapi) c_int;
extern "kernel32" fn GetCurrentProcess() callconv(.winapi) HANDLE;
extern "kernel32" fn GetProcessAffinityMask(
    process: HANDLE,
    process_mask: *usize,
    system_mask: *usize,
) callconv(.winapi) c_int;
extern "kernel32" fn GetActiveProcessorCount(group: u16) callconv(.winapi) u32;
extern "kernel32" fn K32EnumProcessModules(
    process: HANDLE,
    modules: [*]HANDLE,
    size: u32,
    needed: *u32,
) callconv(.winapi) c_int;
extern "kernel32" fn GetProcAddress(
    module: HANDLE,
    name: [*:0]const u8,
) callconv(.winapi) ?*anyopaque;
extern "kernel32" fn GetStdHandle(which: u32) callconv(.winapi) ?HANDLE;
extern "kernel32" fn WriteFile(
    file: HANDLE,
    bytes: [*]const u8,
    count: u32,
    written: *u32,
    overlapped: ?*anyopaque,
) callconv(.winapi) c_int;

// ---- threads ----

pub const Thread = struct {
    handle: HANDLE,

    pub fn join(t: Thread) void {
        _ = WaitForSingleObject(t.handle, infinite);
        _ = CloseHandle(t.handle);
    }

    pub fn detach(t: Thread) void {
        _ = CloseHandle(t.handle);
    }
};

const Start = struct { function: *const fn (?*anyopaque) void, arg: ?*anyopaque };

fn threadMain(raw: ?*anyopaque) callconv(.winapi) u32 {
    const start: *Start = @ptrCast(@alignCast(raw.?));
    const s = start.*;
    std.c.free(start);
    s.function(s.arg);
    return 0;
}

pub const SpawnError = error{ OutOfMemory, ThreadLimit };

/// Starts a thread. The stack's size is what it reserves, as elsewhere; without the flag it would
/// be committed.
pub fn spawn(
    function: *const fn (?*anyopaque) void,
    arg: ?*anyopaque,
    options: os.SpawnOptions,
) SpawnError!Thread {
    const raw = std.c.malloc(@sizeOf(Start)) orelse return error.OutOfMemory;
    const start: *Start = @ptrCast(@alignCast(raw));
    start.* = .{ .function = function, .arg = arg };
    const stack_size_param_is_a_reservation = 0x10000;
    const handle = CreateThread(
        null,
        options.stack_size,
        threadMain,
        start,
        stack_size_param_is_a_reservation,
        null,
    ) orelse {
        std.c.free(start);
        return error.ThreadLimit;
    };
    return .{ .handle = handle };
}

extern "kernel32" fn GetCurrentThread() callconv(.winapi) HANDLE;

/// Of use on this thread only.
pub fn thisThread() Thread {
    return .{ .handle = GetCurrentThread() };
}

// There are no signals; the console's events come on a thread of their own.
pub const SignalMask = void;
pub fn signalMask() SignalMask {}
pub fn allowInterrupts(_: bool) void {}
pub fn interrupt(_: Thread) void {}
pub fn signalThread(_: Thread, _: u8) void {}
pub fn askForMask(_: Thread, _: SignalMask) bool {
    return true;
}
pub fn awaitMasks() void {}
pub fn letInterruptsThrough() SignalMask {}
pub fn setMask(_: SignalMask) void {}
pub fn sameMask(_: *const SignalMask, _: *const SignalMask) bool {
    return true;
}

/// Ends the calling thread from whatever stack it is on. The system frees the stack that the
/// environment block names, which must not be a goroutine's: first goes the thread home.
pub fn threadExitHere() noreturn {
    if (enteredHere()) |s| {
        const bounds = StackBounds.current();
        bounds.base = s.home.base;
        bounds.limit = stackLimit(s.home.deallocation, s.home.base);
        StackBounds.deallocation().* = s.home.deallocation;
        const exit: *const fn (u32) callconv(.winapi) noreturn = &ExitThread;
        switch (builtin.cpu.arch) {
            .x86_64 => asm volatile (
                \\ movq %[sp], %%rsp
                \\ xorl %%ecx, %%ecx
                \\ callq *%[exit]
                :
                : [sp] "{rdx}" (s.home.sp),
                  [exit] "{rax}" (exit),
                : .{ .memory = true }),
            .aarch64 => asm volatile (
                \\ mov sp, %[sp]
                \\ mov w0, wzr
                \\ blr %[exit]
                :
                : [sp] "{x1}" (s.home.sp),
                  [exit] "{x2}" (exit),
                : .{ .memory = true }),
            else => comptime unreachable,
        }
    }
    ExitThread(0);
}

/// CPUs this process may run on.
pub fn cpuCount() usize {
    const all_groups = 0xffff;
    var mine: usize = 0;
    var all: usize = 0;
    // Beyond 64 processors there are groups and the masks tell of one at most. A process that was
    // not restricted within it may use the others, too.
    const known = GetProcessAffinityMask(GetCurrentProcess(), &mine, &all) != 0;
    if (known and mine != 0 and mine != all) return @popCount(mine);
    return @max(1, GetActiveProcessorCount(all_groups));
}

// ---- memory ----

pub const page_size: usize = 4096;

const mem_commit = 0x1000;
const mem_reserve = 0x2000;
const mem_decommit = 0x4000;
const mem_release = 0x8000;
const page_readwrite = 0x04;
const page_guard = 0x100;

const MemoryInformation = extern struct {
    base: usize,
    allocation_base: usize,
    allocation_protection: u32,
    partition: u16,
    /// Bytes from `base` on that are alike.
    size: usize,
    state: u32,
    protection: u32,
    kind: u32,
};

fn query(address: usize) MemoryInformation {
    var info: MemoryInformation = undefined;
    const size = @sizeOf(MemoryInformation);
    if (VirtualQuery(@ptrFromInt(address), &info, size) != size)
        os.fatal("VirtualQuery failed at 0x{x}", .{address});
    return info;
}

/// Reserves address space. It costs no memory, and none can be touched before `openStack`.
pub fn reserve(size: usize) error{OutOfMemory}![*]align(4096) u8 {
    const pages = VirtualAlloc(null, size, mem_reserve, page_readwrite) orelse
        return error.OutOfMemory;
    return @ptrCast(@alignCast(pages));
}

/// `pages` and `size` are those of `reserve`.
pub fn release(pages: [*]align(4096) u8, size: usize) void {
    _ = size; // The system wants a 0 and frees the whole reservation.
    _ = VirtualFree(pages, 0, mem_release);
}

/// Gives the memory of these pages back. A stack among them needs `openStack` before its next use
/// and reads as zeroes then.
pub fn discard(pages: [*]align(4096) u8, size: usize) void {
    _ = VirtualFree(pages, size, mem_decommit);
}

/// Makes these pages fault on any access: what is not committed does.
pub fn guard(pages: [*]align(4096) u8, size: usize) error{OutOfMemory}!void {
    discard(pages, size);
}

/// A stack overflow leaves no stack for a handler to go on with.
pub const opens_guards = false;

/// There are no signals to speak of.
pub const Disposition = enum { as_before, written, ignored };

pub fn takeSignal(_: usize, _: Disposition) bool {
    return false;
}

pub fn writeSignals(_: c_int) void {}

pub fn passSignals(_: c_int, _: c_int, _: c_int) std.c.E {
    return .SUCCESS;
}

pub fn unguard(_: [*]align(4096) u8, _: usize) bool {
    return false;
}

/// Committed at the top of a new stack. A parked Python goroutine fits in, and costs this and the
/// guard page of the system's commit limit; deeper calls grow the stack by a fault a page.
const stack_commit = 4 * page_size;

/// Makes reserved pages into a stack that a thread may be switched to: its top is committed, with
/// the page that makes it grow below. For stacks that are new or were discarded.
pub fn openStack(lo: usize, hi: usize) error{OutOfMemory}!void {
    // The kernel never grows a stack into its lowest page.
    std.debug.assert(hi - lo >= 3 * page_size);
    const commit = @min(stack_commit, hi - lo - 2 * page_size);
    const limit: usize = hi - commit;
    const top: *anyopaque = @ptrFromInt(limit);
    const below: *anyopaque = @ptrFromInt(limit - page_size);
    if (VirtualAlloc(top, commit, mem_commit, page_readwrite) == null or
        VirtualAlloc(below, page_size, mem_commit, page_readwrite | page_guard) == null)
    {
        discard(@ptrFromInt(lo), hi - lo);
        return error.OutOfMemory;
    }
}

/// The lowest address of a stack that is committed and not a guard, which is its StackLimit. For
/// stacks that are open and that no thread runs on.
pub fn stackLimit(lo: usize, hi: usize) usize {
    // Most never grew.
    if (hi - lo > stack_commit + page_size) {
        const info = query(hi - stack_commit - page_size);
        if (info.protection & page_guard != 0) return info.base + info.size;
    }
    // From below: what is not committed, perhaps in several pieces, then the guard, then what is
    // in use.
    var info = query(lo);
    while (info.state != mem_commit) info = query(info.base + info.size);
    const limit = if (info.protection & page_guard != 0) info.base + info.size else info.base;
    std.debug.assert(limit < hi);
    return @max(limit, lo);
}

/// The start of the thread's environment block.
const StackBounds = extern struct {
    exception_list: usize,
    base: usize,
    limit: usize,

    fn current() *volatile StackBounds {
        return @ptrCast(w.teb());
    }

    /// The lowest address that is the stack's, committed or not.
    fn deallocation() *volatile usize {
        return @ptrFromInt(@intFromPtr(w.teb()) + 0x1478);
    }
};

// ---- thread-specific slots, symbols, output ----

/// A thread-specific slot that other code created.
pub const Slot = u32;

pub fn slotGet(slot: Slot) ?*anyopaque {
    // TlsGetValue clears the thread's last error, which the caller of a switch may still want.
    const teb = w.teb();
    const last_error = teb.LastErrorValue;
    const value = TlsGetValue(slot);
    teb.LastErrorValue = last_error;
    return value;
}

pub fn slotSet(slot: Slot, value: ?*anyopaque) void {
    _ = TlsSetValue(slot, value);
}

/// The slot that holds `value` on this thread. There are 64 in the environment block and 1024
/// behind it; reading one that is not allocated gives null.
pub fn findSlot(value: *anyopaque) ?Slot {
    var slot: Slot = 0;
    while (slot < 64 + 1024) : (slot += 1) {
        if (slotGet(slot) == value) return slot;
    }
    return null;
}

/// The address of a symbol of the process, or null: the first module that exports it, in loading
/// order, as dlsym searches. Python's may come from python3xx.dll, a debug or free-threaded
/// variant of it, or a program that was linked with it.
pub fn symbol(name: [*:0]const u8) ?*anyopaque {
    var modules: [1024]HANDLE = undefined;
    var needed: u32 = undefined;
    const process = GetCurrentProcess();
    if (K32EnumProcessModules(process, &modules, @sizeOf(@TypeOf(modules)), &needed) == 0)
        return null;
    const count = @min(needed / @sizeOf(HANDLE), modules.len);
    for (modules[0..count]) |module| {
        if (GetProcAddress(module, name)) |address| return address;
    }
    return null;
}

pub fn writeStderr(bytes: []const u8) void {
    const std_error_handle: u32 = @bitCast(@as(i32, -12));
    // Programs without a console have none.
    const handle = GetStdHandle(std_error_handle) orelse return;
    var rest = bytes;
    while (rest.len > 0) {
        var n: u32 = 0;
        const most: u32 = @intCast(@min(rest.len, 1 << 20));
        if (WriteFile(handle, rest.ptr, most, &n, null) == 0 or n == 0) return;
        rest = rest[n..];
    }
}

// ---- faults ----

/// What the calling thread needs so that a fault can be handled: room on every stack it runs on,
/// and the way back to its own. Kept in the thread's M.
pub const FaultStack = struct {
    memory: []u8 = &.{},
    home: struct { base: usize, deallocation: usize, sp: usize } = undefined,

    /// Exceptions are handled on the stack where they happen, so no memory is needed.
    pub const size = 0;

    /// Bytes at the low end of a stack that only the handler of its overflow gets. The kernel's
    /// frame takes up to 12 KiB of them, with all vector state.
    const guarantee = 32 * 1024;

    /// Prepares the calling thread, which is on its own stack. `s` must stay until `leave`.
    pub fn enter(s: *FaultStack, memory: []u8) void {
        s.* = .{
            .memory = memory,
            .home = .{
                .base = StackBounds.current().base,
                .deallocation = StackBounds.deallocation().*,
                // Below this frame, which is gone by the time of its use, there is nothing.
                .sp = std.mem.alignBackward(usize, @intFromPtr(&s) - 512, 16),
            },
        };
        // It only ever grows, and stays when the thread leaves.
        var bytes: u32 = guarantee;
        _ = SetThreadStackGuarantee(&bytes);
        setEnteredHere(s);
    }

    pub fn leave(s: *FaultStack) void {
        std.debug.assert(enteredHere() == s);
        setEnteredHere(null);
    }
};

threadlocal var entered: ?*FaultStack = null;

// Not inlined: a goroutine may be on another thread after a switch, while compilers keep the
// address of a thread-local.
noinline fn enteredHere() ?*FaultStack {
    return entered;
}

noinline fn setEnteredHere(s: ?*FaultStack) void {
    entered = s;
}

const status_access_violation = 0xc000_0005;
const status_in_page_error = 0xc000_0006;
const status_stack_overflow = 0xc000_00fd;
const exception_continue_search = 0;
const exception_continue_execution = -1;

var fault_callback: ?os.FaultCallback = null;
var fault_handler: ?*anyopaque = null;

/// Calls `callback` when a memory fault happens, before any other handler sees it; after it
/// returns, other handlers get the exception, as if golibx had not been there. Some do expect
/// faults (ctypes turns them into OSError), so an address that is not a goroutine's is none of
/// golibx's business. A stack overflow has the address of the last byte below the stack, as on
/// other systems.
pub fn handleFault(callback: ?os.FaultCallback) void {
    fault_callback = callback;
    if (callback == null) {
        if (fault_handler) |handler| _ = ntdll.RtlRemoveVectoredExceptionHandler(handler);
        fault_handler = null;
    } else if (fault_handler == null) {
        fault_handler = ntdll.RtlAddVectoredExceptionHandler(1, onFault);
    }
}

fn onFault(info: *w.EXCEPTION_POINTERS) callconv(.winapi) c_long {
    const record = info.ExceptionRecord;
    const address = switch (record.ExceptionCode) {
        status_stack_overflow => StackBounds.deallocation().* - 1,
        status_access_violation, status_in_page_error => record.ExceptionInformation[1],
        else => return exception_continue_search,
    };
    if (fault_callback) |callback| {
        if (callback(address)) return exception_continue_execution;
    }
    return exception_continue_search;
}

test {
    std.testing.refAllDecls(@This());
    _ = waits;
}

const testing = std.testing;

test "threads end and are joined" {
    const T = struct {
        fn add(arg: ?*anyopaque) void {
            const n: *std.atomic.Value(u32) = @ptrCast(@alignCast(arg.?));
            _ = n.fetchAdd(1, .monotonic);
        }
    };
    var n: std.atomic.Value(u32) = .init(0);
    var threads: [4]Thread = undefined;
    for (&threads) |*t| t.* = try spawn(T.add, &n, 64 * 1024);
    for (threads) |t| t.join();
    try testing.expectEqual(threads.len, n.load(.monotonic));
    try testing.expect(cpuCount() >= 1);
}

extern "kernel32" fn TlsAlloc() callconv(.winapi) u32;
extern "kernel32" fn TlsFree(index: u32) callconv(.winapi) c_int;

test "a slot is found by its value, and reading it keeps the last error" {
    var value: u32 = 0;
    try testing.expectEqual(null, findSlot(&value));
    // Beyond the environment block's own 64, too.
    var slots: [80]Slot = undefined;
    for (&slots) |*slot| slot.* = TlsAlloc();
    defer for (slots) |slot| {
        _ = TlsFree(slot);
    };
    for ([_]Slot{ slots[0], slots[79] }) |slot| {
        slotSet(slot, &value);
        defer slotSet(slot, null);
        w.teb().LastErrorValue = .BROKEN_PIPE;
        try testing.expectEqual(slot, findSlot(&value));
        try testing.expectEqual(.BROKEN_PIPE, w.teb().LastErrorValue);
        try testing.expectEqual(@as(?*anyopaque, &value), slotGet(slot));
    }
}

test "symbols are found in any module" {
    try testing.expect(symbol("VirtualAlloc") != null);
    try testing.expect(symbol("RtlWaitOnAddress") != null);
    try testing.expectEqual(null, symbol("golibx_has_no_such_symbol"));
}

/// Calls `function` on another stack, with the bounds that the context switch would set.
fn callOn(lo: usize, hi: usize, function: *const fn () callconv(.c) void) void {
    const bounds = StackBounds.current();
    const deallocation = StackBounds.deallocation();
    const old = bounds.*;
    const old_deallocation = deallocation.*;
    bounds.base = hi;
    bounds.limit = stackLimit(lo, hi);
    deallocation.* = lo;
    const call: *const fn (usize, *const fn () callconv(.c) void) callconv(.c) void =
        @ptrCast(&callAt);
    call(hi, function);
    bounds.base = old.base;
    bounds.limit = old.limit;
    deallocation.* = old_deallocation;
}

fn callAt() callconv(.naked) void {
    switch (builtin.cpu.arch) {
        .x86_64 => asm volatile (
            \\ pushq %%rbx
            \\ movq %%rsp, %%rbx
            \\ leaq -32(%%rcx), %%rsp
            \\ callq *%%rdx
            \\ movq %%rbx, %%rsp
            \\ popq %%rbx
            \\ retq
        ),
        .aarch64 => asm volatile (
            \\ stp x29, x30, [sp, #-16]!
            \\ mov x29, sp
            \\ mov sp, x0
            \\ blr x1
            \\ mov sp, x29
            \\ ldp x29, x30, [sp], #16
            \\ ret
        ),
        else => comptime unreachable,
    }
}

/// Uses about `depth` KiB of stack.
noinline fn dig(depth: usize) usize {
    var frame: [1024]u8 = undefined;
    const bytes: *volatile [1024]u8 = &frame;
    bytes[depth % 1024] = 1;
    return if (depth == 0) 0 else dig(depth - 1) + bytes[depth % 1024];
}

test "a stack is opened, grows, is used again and discarded" {
    const T = struct {
        var dug: usize = 0;
        var limit: usize = 0;

        fn run() callconv(.c) void {
            dug = dig(100);
            limit = StackBounds.current().limit;
        }
    };
    const size = 256 * 1024;
    const pages = try reserve(2 * size);
    defer release(pages, 2 * size);
    const lo = @intFromPtr(pages) + size;
    const hi = lo + size;
    for (0..2) |_| {
        try openStack(lo, hi);
        try testing.expectEqual(hi - stack_commit, stackLimit(lo, hi));
        const top: *u32 = @ptrFromInt(hi - 8);
        try testing.expectEqual(0, top.*);
        top.* = 1;
        for (0..2) |_| {
            T.dug = 0;
            callOn(lo, hi, T.run);
            try testing.expectEqual(100, T.dug);
            try testing.expect(T.limit <= hi - 100 * 1024 and T.limit >= hi - 150 * 1024);
            try testing.expectEqual(T.limit, stackLimit(lo, hi));
        }
        discard(@ptrFromInt(lo), size);
        for ([_]usize{ lo, hi - 100 * 1024, hi - 1 }) |address|
            try testing.expectEqual(mem_reserve, query(address).state);
    }
}

test "an overflow is reported with its address, and the thread can end there" {
    const T = struct {
        var lo: usize = 0;
        var hi: usize = 0;
        var address: usize = 0;
        var room: bool = false;

        fn main(_: ?*anyopaque) void {
            var fault: FaultStack = .{};
            fault.enter(&.{});
            callOn(lo, hi, overflow);
        }

        fn overflow() callconv(.c) void {
            _ = dig(1 << 20);
        }

        fn onOverflow(at: usize) bool {
            address = at;
            // Most of the guaranteed room is there.
            room = dig(FaultStack.guarantee / 1024 / 2) > 0;
            threadExitHere();
        }
    };
    const size = 256 * 1024;
    const pages = try reserve(size);
    defer release(pages, size);
    T.lo = @intFromPtr(pages) + page_size;
    T.hi = @intFromPtr(pages) + size;
    try guard(pages, page_size);
    try openStack(T.lo, T.hi);
    handleFault(T.onOverflow);
    defer handleFault(null);
    const t = try spawn(T.main, null, 256 * 1024);
    t.join();
    try testing.expectEqual(T.lo - 1, T.address);
    try testing.expect(T.room);
    // The thread took its own stack along, not the one it ended on.
    try testing.expectEqual(mem_commit, query(T.hi - 1).state);
}

test "a fault tells its address" {
    const T = struct {
        var page: usize = 0;
        var address: usize = 0;

        fn main(_: ?*anyopaque) void {
            @as(*volatile u8, @ptrFromInt(page + 5)).* = 1;
        }

        fn onFaultAt(at: usize) bool {
            address = at;
            threadExitHere();
        }
    };
    const pages = try reserve(page_size);
    defer release(pages, page_size);
    T.page = @intFromPtr(pages);
    handleFault(T.onFaultAt);
    defer handleFault(null);
    const t = try spawn(T.main, null, 64 * 1024);
    t.join();
    try testing.expectEqual(T.page + 5, T.address);
}

extern "c" fn _msize(block: *const anyopaque) usize;

/// Bytes of a block of the C library's allocator.
pub fn allocatedSize(block: *const anyopaque) usize {
    return _msize(block);
}

/// CPUs that a quota allows: no such thing here.
pub fn cpuQuota() ?u32 {
    return null;
}

/// Copies memory that may not be there any more: no caller needs it here yet.
pub fn peek(_: usize, _: []u8) bool {
    return false;
}

/// Tells a fork's child from the process that it came from: there are none here.
pub fn processId() i32 {
    return 0;
}

/// There is no fork.
pub fn atFork(_: *const fn () callconv(.c) void) bool {
    return true;
}

pub fn exitProcess(status: u8) noreturn {
    std.process.exit(status);
}

pub fn endByInterrupt() noreturn {
    std.process.exit(130);
}

pub fn stackOf(_: Thread) ?[2]usize {
    return null;
}

/// Of the calling thread, as `threadIds` would have it.
pub fn threadId() i32 {
    return 0;
}

/// Not known here; any may be.
pub fn onMainThread() bool {
    return true;
}

/// CPU time that a thread has had: not known here.
pub fn threadCpuTime(_: i32) ?u64 {
    return null;
}

/// All threads of this process: not known here.
pub fn threadIds(_: []i32) ?usize {
    return null;
}
