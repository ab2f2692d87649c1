//! Context switch for AArch64: the AAPCS64 callee-saved registers (x19-x30, d8-d15), on Linux,
//! macOS and Windows, with the floating-point environment, FPCR, which is loaded only if it
//! differs. Windows also keeps the stack bounds of the thread environment block (x18).
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
    words[link_word] = @intFromPtr(entry);
    if (windows) {
        words[teb_word + 0] = hi; // StackBase
        words[teb_word + 1] = stackLimit(lo, hi); // StackLimit
        words[teb_word + 2] = lo; // DeallocationStack
    }
    return @intFromPtr(words);
}

const link_word = 11; // x30, after x19-x29
const teb_word = 20; // after x19-x30 and d8-d15
const environment_word = 23;
const frame_words = 24;

/// The floating-point environment: FPCR.
pub inline fn environment() u64 {
    return asm volatile ("mrs %[fpcr], fpcr"
        : [fpcr] "=r" (-> u64),
    );
}

pub inline fn setEnvironment(wanted: u64) void {
    if (environment() != wanted) asm volatile ("msr fpcr, %[fpcr]"
        :
        : [fpcr] "r" (wanted),
    );
}

/// Puts a context on the stack and tells where it is, but on Windows.
const push_context =
    \\ sub sp, sp, #192
    \\ stp x19, x20, [sp, #0]
    \\ stp x21, x22, [sp, #16]
    \\ stp x23, x24, [sp, #32]
    \\ stp x25, x26, [sp, #48]
    \\ stp x27, x28, [sp, #64]
    \\ stp x29, x30, [sp, #80]
    \\ stp d8, d9, [sp, #96]
    \\ stp d10, d11, [sp, #112]
    \\ stp d12, d13, [sp, #128]
    \\ stp d14, d15, [sp, #144]
    \\ mrs x12, fpcr
    \\ str x12, [sp, #184]
    \\ mov x9, sp
    \\ str x9, [x0]
    \\
;
/// Takes it off again, and goes on behind it.
const pop_context =
    \\
    \\ ldp x19, x20, [sp, #0]
    \\ ldp x21, x22, [sp, #16]
    \\ ldp x23, x24, [sp, #32]
    \\ ldp x25, x26, [sp, #48]
    \\ ldp x27, x28, [sp, #64]
    \\ ldp x29, x30, [sp, #80]
    \\ ldp d8, d9, [sp, #96]
    \\ ldp d10, d11, [sp, #112]
    \\ ldp d12, d13, [sp, #128]
    \\ ldp d14, d15, [sp, #144]
    \\ add sp, sp, #192
    \\ ret
;

fn switchNaked() callconv(.naked) void {
    if (windows) asm volatile (
        \\ sub sp, sp, #192
        \\ stp x19, x20, [sp, #0]
        \\ stp x21, x22, [sp, #16]
        \\ stp x23, x24, [sp, #32]
        \\ stp x25, x26, [sp, #48]
        \\ stp x27, x28, [sp, #64]
        \\ stp x29, x30, [sp, #80]
        \\ stp d8, d9, [sp, #96]
        \\ stp d10, d11, [sp, #112]
        \\ stp d12, d13, [sp, #128]
        \\ stp d14, d15, [sp, #144]
        \\ ldr x9, [x18, #8]
        \\ ldr x10, [x18, #16]
        \\ stp x9, x10, [sp, #160]
        \\ mov x11, #0x1478
        \\ ldr x9, [x18, x11]
        \\ str x9, [sp, #176]
        \\ mrs x12, fpcr
        \\ str x12, [sp, #184]
        \\ mov x9, sp
        \\ str x9, [x0]
        \\ mov sp, x1
        \\ ldr x9, [sp, #184]
        \\ cmp x9, x12
        \\ b.eq 1f
        \\ msr fpcr, x9
        \\1:
        \\ ldp x9, x10, [sp, #160]
        \\ str x9, [x18, #8]
        \\ str x10, [x18, #16]
        \\ ldr x9, [sp, #176]
        \\ str x9, [x18, x11]
        \\ ldp x19, x20, [sp, #0]
        \\ ldp x21, x22, [sp, #16]
        \\ ldp x23, x24, [sp, #32]
        \\ ldp x25, x26, [sp, #48]
        \\ ldp x27, x28, [sp, #64]
        \\ ldp x29, x30, [sp, #80]
        \\ ldp d8, d9, [sp, #96]
        \\ ldp d10, d11, [sp, #112]
        \\ ldp d12, d13, [sp, #128]
        \\ ldp d14, d15, [sp, #144]
        \\ add sp, sp, #192
        \\ ret
    ) else asm volatile (push_context ++
            \\ mov sp, x1
            \\ ldr x9, [sp, #184]
            \\ cmp x9, x12
            \\ b.eq 1f
            \\ msr fpcr, x9
            \\1:
        ++ pop_context);
}

/// As `switchNaked` saves a context, and leaves it where it is during the call.
pub fn callFromNaked() callconv(.naked) void {
    if (builtin.os.tag == .linux and (builtin.unwind_tables != .none or !builtin.strip_debug_info))
        asm volatile (".cfi_undefined lr");
    asm volatile (push_context ++
            \\ mov x0, x2
            \\ blr x1
        ++ pop_context);
}
