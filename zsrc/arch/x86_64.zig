//! Context switch for x86-64: System V (Linux, macOS) and Windows.
//!
//! A saved context is one word, the address of a few on its stack: the floating-point environment,
//! the frame pointer, where to go on, and the stack pointer. The environment is MXCSR and the x87
//! control word: both are slow to load, and seldom differ, so that they are loaded only if they do.
//!
//! A switch is part of the function that switches, for the compiler an instruction that changes all
//! other registers. So what that function needs afterwards, and what its caller does, is saved once
//! and not a second time. It leaves by a jump: a return would have the processor's stack of return
//! addresses be one off for all the returns that follow.
//!
//! On Windows a switch is a call that saves what callees have to, xmm6-15 among it, and the four
//! fields of the thread information block that describe the current stack, which exception dispatch
//! checks.
const std = @import("std");
const builtin = @import("builtin");
const windows = builtin.os.tag == .windows;
const stackLimit = @import("../os/windows.zig").stackLimit;

/// Saves the caller's context, stores where that is to `save`, and continues at `to`.
pub inline fn switchTo(save: *usize, to: usize) void {
    if (windows) {
        const f: *const fn (*usize, usize) callconv(.c) void = @ptrCast(&switchNaked);
        return f(save, to);
    }
    var context: [context_words]usize = undefined;
    // What is given in registers is changed there, too.
    var first: usize = undefined;
    var second: usize = undefined;
    var third: usize = undefined;
    asm volatile (
        \\ leaq 9f(%%rip), %%rax
        \\ movq %%rax, 16(%%rdx)
        \\ movq %%rbp, 8(%%rdx)
        \\ movq %%rsp, 24(%%rdx)
        \\ stmxcsr (%%rdx)
        \\ fnstcw 4(%%rdx)
        \\ movl (%%rdx), %%eax
        \\ movw 4(%%rdx), %%cx
        \\ movq %%rdx, (%%rdi)
        \\ movq 24(%%rsi), %%rsp
        \\ movq 8(%%rsi), %%rbp
        \\ cmpl (%%rsi), %%eax
        \\ jne 1f
        \\ cmpw 4(%%rsi), %%cx
        \\ je 2f
        \\1:
        \\ ldmxcsr (%%rsi)
        \\ fldcw 4(%%rsi)
        \\2:
        \\ jmpq *16(%%rsi)
        \\9:
        : [first] "={rdi}" (first),
          [second] "={rsi}" (second),
          [third] "={rdx}" (third),
        : [save] "{rdi}" (save),
          [to] "{rsi}" (to),
          [context] "{rdx}" (&context),
        : changed_by_switch);
}

const changed_by_switch: std.lang.assembly.Clobbers = clobbers: {
    var all: std.lang.assembly.Clobbers = .{ .memory = true };
    const others = .{ "rax", "rbx", "rcx", "r8", "r9", "r10", "r11", "r12", "r13", "r14" };
    for (others ++ .{ "r15", "cc" }) |name| @field(all, name) = true;
    for (0..16) |i| @field(all, std.fmt.comptimePrint("xmm{d}", .{i})) = true;
    for (0..8) |i| @field(all, std.fmt.comptimePrint("st{d}", .{i})) = true;
    break :clobbers all;
};

/// Lays out a fresh stack so that the first `switchTo` it enters `entry`. `lo` and `hi` bound the
/// stack, lowest address first; `hi` is 16-byte aligned. It runs in that environment.
pub fn prepare(
    lo: usize,
    hi: usize,
    entry: *const fn () callconv(.c) noreturn,
    environment_there: u64,
) usize {
    const words: [*]usize = @ptrFromInt(hi - prepared_words * @sizeOf(usize));
    @memset(words[0..prepared_words], 0);
    words[environment_word] = environment_there;
    if (windows) {
        words[gs_word + 0] = lo; // DeallocationStack
        words[gs_word + 1] = stackLimit(lo, hi); // StackLimit
        words[gs_word + 2] = hi; // StackBase
        words[gs_word + 3] = ~@as(usize, 0); // no exception handlers yet
    } else words[stack_word] = hi - @sizeOf(usize);
    words[return_word] = @intFromPtr(entry);
    return @intFromPtr(words);
}

// What a context has, lowest address first. On Windows that is the saved registers and then the
// return address.
const environment_word = if (windows) 20 else 0; // after xmm6-15
const gs_word = 21;
const return_word = if (windows) 21 + 4 + 8 else 2;
const stack_word = 3;
const context_words = 4;
/// `entry` finds its stack aligned as after a call. Above is the word that a call would have left,
/// on Windows with the four above it that a callee may use.
const prepared_words = if (windows) return_word + 1 + 1 + 4 else context_words + 2;

/// The floating-point environment: MXCSR, and the x87 control word above it.
pub inline fn environment() u64 {
    var words: [2]u32 = .{ 0, 0 };
    asm volatile (
        \\ stmxcsr (%%rax)
        \\ fnstcw 4(%%rax)
        :
        : [words] "{rax}" (&words),
        : .{ .memory = true });
    return @bitCast(words);
}

pub inline fn setEnvironment(wanted: u64) void {
    if (environment() != wanted) loadEnvironment(wanted);
}

noinline fn loadEnvironment(wanted: u64) void {
    const words: [2]u32 = @bitCast(wanted);
    asm volatile (
        \\ ldmxcsr (%%rax)
        \\ fldcw 4(%%rax)
        :
        : [words] "{rax}" (&words),
        : .{ .memory = true });
}

/// For Windows.
fn switchNaked() callconv(.naked) void {
    asm volatile (
        \\ pushq %%rbp
        \\ pushq %%rbx
        \\ pushq %%rdi
        \\ pushq %%rsi
        \\ pushq %%r12
        \\ pushq %%r13
        \\ pushq %%r14
        \\ pushq %%r15
        \\ pushq %%gs:0
        \\ pushq %%gs:8
        \\ pushq %%gs:16
        \\ pushq %%gs:0x1478
        \\ subq $168, %%rsp
        \\ stmxcsr 160(%%rsp)
        \\ fnstcw 164(%%rsp)
        \\ movl 160(%%rsp), %%eax
        \\ movw 164(%%rsp), %%r8w
        \\ movups %%xmm6, 0(%%rsp)
        \\ movups %%xmm7, 16(%%rsp)
        \\ movups %%xmm8, 32(%%rsp)
        \\ movups %%xmm9, 48(%%rsp)
        \\ movups %%xmm10, 64(%%rsp)
        \\ movups %%xmm11, 80(%%rsp)
        \\ movups %%xmm12, 96(%%rsp)
        \\ movups %%xmm13, 112(%%rsp)
        \\ movups %%xmm14, 128(%%rsp)
        \\ movups %%xmm15, 144(%%rsp)
        \\ movq %%rsp, (%%rcx)
        \\ movq %%rdx, %%rsp
        \\ movups 0(%%rsp), %%xmm6
        \\ movups 16(%%rsp), %%xmm7
        \\ movups 32(%%rsp), %%xmm8
        \\ movups 48(%%rsp), %%xmm9
        \\ movups 64(%%rsp), %%xmm10
        \\ movups 80(%%rsp), %%xmm11
        \\ movups 96(%%rsp), %%xmm12
        \\ movups 112(%%rsp), %%xmm13
        \\ movups 128(%%rsp), %%xmm14
        \\ movups 144(%%rsp), %%xmm15
        \\ cmpl 160(%%rsp), %%eax
        \\ jne 1f
        \\ cmpw 164(%%rsp), %%r8w
        \\ je 2f
        \\1:
        \\ ldmxcsr 160(%%rsp)
        \\ fldcw 164(%%rsp)
        \\2:
        \\ addq $168, %%rsp
        \\ popq %%gs:0x1478
        \\ popq %%gs:16
        \\ popq %%gs:8
        \\ popq %%gs:0
        \\ popq %%r15
        \\ popq %%r14
        \\ popq %%r13
        \\ popq %%r12
        \\ popq %%rsi
        \\ popq %%rdi
        \\ popq %%rbx
        \\ popq %%rbp
        \\ retq
    );
}

/// Leaves a context of its caller's where it is during the call, as `switchTo` saves one, with all
/// registers that callers expect to find unchanged above it. An unwinder, such as pthread_exit()'s,
/// is told that the stack ends here: its tables know nothing of what is pushed.
pub fn callFromNaked() callconv(.naked) void {
    if (builtin.os.tag == .linux and (builtin.unwind_tables != .none or !builtin.strip_debug_info))
        asm volatile (".cfi_undefined %%rip");
    asm volatile (
        \\ pushq %%rbp
        \\ pushq %%rbx
        \\ pushq %%r12
        \\ pushq %%r13
        \\ pushq %%r14
        \\ pushq %%r15
        \\ subq $40, %%rsp
        \\ leaq 9f(%%rip), %%rax
        \\ movq %%rax, 16(%%rsp)
        \\ movq %%rsp, 24(%%rsp)
        \\ stmxcsr (%%rsp)
        \\ fnstcw 4(%%rsp)
        \\ movq %%rsp, (%%rdi)
        \\ movq %%rdx, %%rdi
        \\ callq *%%rsi
        \\9:
        \\ addq $40, %%rsp
        \\ popq %%r15
        \\ popq %%r14
        \\ popq %%r13
        \\ popq %%r12
        \\ popq %%rbx
        \\ popq %%rbp
        \\ retq
    );
}
