//! The processor's part of a goroutine: saving one context and continuing another.
const std = @import("std");
const builtin = @import("builtin");

const impl = switch (builtin.cpu.arch) {
    .x86_64 => @import("x86_64.zig"),
    .aarch64 => @import("aarch64.zig"),
    else => |arch| @compileError("golibx has no context switch for " ++ @tagName(arch)),
};

pub const switchTo = impl.switchTo;
pub const prepare = impl.prepare;
pub const environment = impl.environment;
pub const setEnvironment = impl.setEnvironment;

/// Calls function(arg). A `switchTo` to what is in `save` meanwhile, which abandons the function,
/// has this call return.
pub inline fn callFrom(
    save: *usize,
    function: *const fn (?*anyopaque) callconv(.c) void,
    arg: ?*anyopaque,
) void {
    if (builtin.os.tag == .windows) return function(arg);
    const f: *const fn (
        *usize,
        *const fn (?*anyopaque) callconv(.c) void,
        ?*anyopaque,
    ) callconv(.c) void = @ptrCast(&impl.callFromNaked);
    f(save, function, arg);
}

/// The address of the running stack, near enough to tell which stack it is.
pub inline fn stackPointer() usize {
    return switch (builtin.cpu.arch) {
        .x86_64 => asm ("movq %%rsp, %[sp]"
            : [sp] "=r" (-> usize),
        ),
        .aarch64 => asm ("mov %[sp], sp"
            : [sp] "=r" (-> usize),
        ),
        else => unreachable,
    };
}

/// What the running thread's thread-local data lies relative to, on Linux. Read anew at each call:
/// a goroutine goes on on another thread after a switch.
pub inline fn threadPointer() usize {
    return switch (builtin.cpu.arch) {
        .x86_64 => asm volatile ("movq %%fs:0, %[tp]"
            : [tp] "=r" (-> usize),
        ),
        .aarch64 => asm volatile ("mrs %[tp], tpidr_el0"
            : [tp] "=r" (-> usize),
        ),
        else => unreachable,
    };
}

test "a call is returned from by a switch to where it came from" {
    if (builtin.os.tag == .windows) return error.SkipZigTest;
    const T = struct {
        var home: usize = 0;
        var other: usize = 0;
        var stack: [64 * 1024]u8 align(16) = undefined;
        var calls: u32 = 0;

        fn plain(arg: ?*anyopaque) callconv(.c) void {
            const n: *u32 = @ptrCast(@alignCast(arg.?));
            calls += n.*;
        }

        fn away(arg: ?*anyopaque) callconv(.c) void {
            plain(arg);
            const lo = @intFromPtr(&stack);
            switchTo(&other, prepare(lo, lo + stack.len, back, environment()));
        }

        fn back() callconv(.c) noreturn {
            calls += 10;
            switchTo(&other, home);
            unreachable;
        }
    };
    _ = std.valgrind.stackRegister(&T.stack);
    var one: u32 = 1;
    callFrom(&T.home, T.plain, &one);
    try std.testing.expectEqual(1, T.calls);
    for (0..3) |_| callFrom(&T.home, T.away, &one);
    try std.testing.expectEqual(34, T.calls);
}

test "a thread may end in a call, and unwinds its stack" {
    if (builtin.os.tag == .windows) return error.SkipZigTest;
    const T = struct {
        extern "c" fn pthread_exit(value: ?*anyopaque) noreturn;
        var home: usize = 0;

        fn ends(_: ?*anyopaque) callconv(.c) void {
            pthread_exit(null);
        }

        fn begin(_: ?*anyopaque) callconv(.c) ?*anyopaque {
            callFrom(&home, ends, null);
            return &home;
        }
    };
    var thread: std.c.pthread_t = undefined;
    try std.testing.expectEqual(.SUCCESS, std.c.pthread_create(&thread, null, T.begin, null));
    var result: ?*anyopaque = &T.home;
    try std.testing.expectEqual(.SUCCESS, std.c.pthread_join(thread, &result));
    try std.testing.expectEqual(null, result);
}

test "a stack switches there and back" {
    const T = struct {
        var main: usize = 0;
        var other: usize = 0;
        var stack: [64 * 1024]u8 align(16) = undefined;
        var log: [4]u8 = undefined;
        var len: usize = 0;

        fn put(c: u8) void {
            log[len] = c;
            len += 1;
        }

        fn entry() callconv(.c) noreturn {
            put('b');
            switchTo(&other, main);
            put('d');
            switchTo(&other, main);
            unreachable;
        }
    };
    _ = std.valgrind.stackRegister(&T.stack);
    const lo = @intFromPtr(&T.stack);
    T.other = prepare(lo, lo + T.stack.len, T.entry, environment());
    T.put('a');
    switchTo(&T.main, T.other);
    T.put('c');
    switchTo(&T.main, T.other);
    try std.testing.expectEqualStrings("abcd", &T.log);
}

test "the floating-point environment belongs to the context" {
    if (builtin.cpu.arch != .x86_64) return; // elsewhere its bits mean other things
    const T = struct {
        const up = 0x4000; // MXCSR.RC
        var main: usize = 0;
        var other: usize = 0;
        var stack: [64 * 1024]u8 align(16) = undefined;
        var seen: [3]u64 = undefined;

        fn entry() callconv(.c) noreturn {
            seen[0] = environment();
            setEnvironment(seen[0] | up);
            switchTo(&other, main);
            seen[2] = environment();
            switchTo(&other, main);
            unreachable;
        }
    };
    _ = std.valgrind.stackRegister(&T.stack);
    const lo = @intFromPtr(&T.stack);
    const own = environment();
    T.other = prepare(lo, lo + T.stack.len, T.entry, own);
    switchTo(&T.main, T.other);
    T.seen[1] = environment();
    switchTo(&T.main, T.other);
    try std.testing.expectEqual(own, T.seen[0]);
    try std.testing.expectEqual(own, T.seen[1]);
    try std.testing.expectEqual(own | T.up, T.seen[2]);
    try std.testing.expectEqual(own, environment());
}
