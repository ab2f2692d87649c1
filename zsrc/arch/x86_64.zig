//! Context switch for x86-64: System V (Linux, macOS) and Windows.
//!
//! A saved context is one word, the stack pointer; the callee-saved registers lie on the stack it
//! points to, with the floating-point environment: MXCSR and the x87 control word. Both are slow to
//! load, and seldom differ: they are loaded only if they do. Windows also saves xmm6-15 and the
//! four fields of the thread information block that describe the current stack, which exception
//! dispatch checks.
const builtin = @import("builtin");
const windows = builtin.os.tag == .windows;
const stackLimit = @import("../os/windows.zig").stackLimit;

/// Saves the caller's context, stores its stack pointer to `save`, and continues at `to`.
pub inline fn switchTo(save: *usize, to: usize) void {
    const f: *const fn (*usize, usize) callconv(.c) void = @ptrCast(&switchNaked);
    f(save, to);
}

/// Lays out a fresh stack so that the first `switchTo` it enters `entry`. `lo` and `hi` bound the
/// stack, lowest address first; `hi` is 16-byte aligned. It runs in that environment.
pub fn prepare(
    lo: usize,
    hi: usize,
    entry: *const fn () callconv(.c) noreturn,
    environment_there: u64,
) usize {
    const words: [*]usize = @ptrFromInt(hi - frame_words * @sizeOf(usize));
    @memset(words[0..frame_words], 0);
    words[environment_word] = environment_there;
    if (windows) {
        words[gs_word + 0] = lo; // DeallocationStack
        words[gs_word + 1] = stackLimit(lo, hi); // StackLimit
        words[gs_word + 2] = hi; // StackBase
        words[gs_word + 3] = ~@as(usize, 0); // no exception handlers yet
    }
    words[return_word] = @intFromPtr(entry);
    return @intFromPtr(words);
}

// What a stack holds, lowest address first: the saved registers, then the return address. One
// more word keeps `entry` on a stack aligned as after a call.
const environment_word = if (windows) 20 else 0; // after xmm6-15
const gs_word = 21;
const return_word = if (windows) 21 + 4 + 8 else 1 + 6;
const frame_words = if (windows) return_word + 5 else return_word + 2;

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

/// Puts a context on the stack, but on Windows.
const push_context =
    \\ pushq %%rbp
    \\ pushq %%rbx
    \\ pushq %%r12
    \\ pushq %%r13
    \\ pushq %%r14
    \\ pushq %%r15
    \\ subq $8, %%rsp
    \\ stmxcsr (%%rsp)
    \\ fnstcw 4(%%rsp)
    \\
;
/// Takes it off again, and goes on behind it.
const pop_context =
    \\
    \\ addq $8, %%rsp
    \\ popq %%r15
    \\ popq %%r14
    \\ popq %%r13
    \\ popq %%r12
    \\ popq %%rbx
    \\ popq %%rbp
    \\ retq
;

fn switchNaked() callconv(.naked) void {
    if (windows) asm volatile (
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
    ) else asm volatile (push_context ++
            \\ movl (%%rsp), %%eax
            \\ movw 4(%%rsp), %%cx
            \\ movq %%rsp, (%%rdi)
            \\ movq %%rsi, %%rsp
            \\ cmpl (%%rsp), %%eax
            \\ jne 1f
            \\ cmpw 4(%%rsp), %%cx
            \\ je 2f
            \\1:
            \\ ldmxcsr (%%rsp)
            \\ fldcw 4(%%rsp)
            \\2:
        ++ pop_context);
}

/// As `switchNaked` saves a context, and leaves it where it is during the call. Who unwinds the
/// stack, as pthread_exit() does, is told that it ends here: tables know nothing of what is pushed.
pub fn callFromNaked() callconv(.naked) void {
    if (builtin.os.tag == .linux and (builtin.unwind_tables != .none or !builtin.strip_debug_info))
        asm volatile (".cfi_undefined %%rip");
    asm volatile (push_context ++
            \\ movq %%rsp, (%%rdi)
            \\ movq %%rdx, %%rdi
            \\ callq *%%rsi
        ++ pop_context);
}
