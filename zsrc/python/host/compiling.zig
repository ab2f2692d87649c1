//! compile(), exec() and eval() of deeply nested source in goroutines, on Python 3.11.
//!
//! That version's compiler recurses without looking at the stack, or at the interpreter's counter:
//! it takes what the counter has left when it begins, three levels of its own for each, as its
//! limit. With a limit that the program has raised that is more than a goroutine's stack holds. So
//! the counter is lowered for the time of such a call: where the stack would end, the compiler
//! raises RecursionError. From 3.12 on the compiler has the limit of recursion through C.
//!
//! exec() and eval() are lowered while they compile a text, not while they run it.
const std = @import("std");
const arch = @import("../../arch/arch.zig");
const py = @import("../py.zig");
const host = @import("host.zig");
const goroutine = @import("goroutine.zig");
const recursion = @import("recursion.zig");
const replace = @import("replace.zig");

const lane = &host.the_lane;

/// CPython's COMPILER_STACK_FRAME_SCALE.
const levels_of_a_call = 3;
/// Stack that one level takes at most: 144 bytes were measured in the compiler, 197 for trees of
/// the module ast.
const level_bytes = 256;
/// What is left below, for what the compiler calls at its deepest.
const slack = 16 * 1024;
/// So many calls may always be made: by the code that shows a warning of the compiler's, say.
const least = 100;

/// How far to lower the counter; null where all that it has fits the stack.
inline fn excess() ?i32 {
    const g = lane.onThread() orelse return null;
    const sp = arch.stackPointer();
    if (!g.stack.contains(sp)) return null;
    const left = recursion.counter(goroutine.of(g).state orelse return null).?.*;
    const room = (sp - g.stack.lo) -| slack;
    const fits: i32 = @intCast(@max(least, room / (level_bytes * levels_of_a_call)));
    return if (left > fits) left - fits else null;
}

inline fn isTooMuch() bool {
    return excess() != null;
}

const Compile = replace.Replacement("builtins", "compile", isTooMuch, compile);
const Exec = replace.Replacement("builtins", "exec", isTooMuch, exec);
const Eval = replace.Replacement("builtins", "eval", isTooMuch, eval);
const Symtable = replace.Replacement("_symtable", "symtable", isTooMuch, symtable);

fn compile(c: replace.Call) ?*py.Object {
    return callLowered(Compile, c);
}

fn symtable(c: replace.Call) ?*py.Object {
    return callLowered(Symtable, c);
}

fn callLowered(comptime replaced: type, c: replace.Call) ?*py.Object {
    const taken = excess() orelse return replaced.callOriginal(c);
    const state = goroutine.of(lane.onThread().?).state.?;
    recursion.counter(state).?.* -= taken;
    // What Python code has counted meanwhile stays.
    defer recursion.counter(state).?.* += taken;
    return replaced.callOriginal(c);
}

fn exec(c: replace.Call) ?*py.Object {
    if (c.n < 1 or !isText(c.args[0]) or !isLong(c.args[0])) return Exec.callOriginal(c);
    return callWithCode(Exec, c, c.args[0], "exec");
}

fn eval(c: replace.Call) ?*py.Object {
    if (c.n < 1 or !isText(c.args[0]) or !isLong(c.args[0])) return Eval.callOriginal(c);
    const text = withoutIndent(c.args[0]) orelse return null;
    defer py.decref(text);
    return callWithCode(Eval, c, text, "eval");
}

/// With the text's code instead of the text, compiled as the function itself would.
fn callWithCode(
    comptime replaced: type,
    c: replace.Call,
    text: *py.Object,
    mode: [:0]const u8,
) ?*py.Object {
    const code = compiled(text, mode) orelse return null;
    defer py.decref(code);
    const named: usize = if (c.names) |names| @intCast(py.PyTuple_Size(names)) else 0;
    const count = @as(usize, @intCast(c.n)) + named;
    var args: [most_args]*py.Object = undefined;
    if (count > most_args) return replaced.callOriginal(c); // which says that it takes less
    @memcpy(args[0..count], c.args[0..count]);
    args[0] = code;
    return replaced.callOriginal(.{ .self = c.self, .args = &args, .n = c.n, .names = c.names });
}

const most_args = 8;

fn isText(o: *py.Object) bool {
    const bytes_or_str = 1 << 27 | 1 << 28; // Py_TPFLAGS_BYTES_SUBCLASS, …_UNICODE_SUBCLASS
    return py.PyType_GetFlags(o.type) & bytes_or_str != 0;
}

/// Nothing is nested deeper than it has characters.
fn isLong(text: *py.Object) bool {
    return py.PyObject_Size(text) > least * levels_of_a_call;
}

/// As eval() takes it.
fn withoutIndent(text: *py.Object) ?*py.Object {
    const strip = py.PyObject_GetAttrString(text, "lstrip") orelse return null;
    defer py.decref(strip);
    const is_str = py.PyType_GetFlags(text.type) & (1 << 28) != 0;
    const made = if (is_str)
        py.PyUnicode_FromString(" \t")
    else
        py.PyBytes_FromStringAndSize(" \t", 2);
    const blank = made orelse return null;
    defer py.decref(blank);
    return py.call(strip, &.{blank});
}

/// With the flags of the frame that called exec() or eval(): it is the current one here too.
fn compiled(text: *py.Object, mode: [:0]const u8) ?*py.Object {
    const function = replace.builtin("builtins", "compile") orelse return null;
    defer py.decref(function);
    const file = py.PyUnicode_FromString("<string>") orelse return null;
    defer py.decref(file);
    const its_mode = py.PyUnicode_FromString(mode.ptr) orelse return null;
    defer py.decref(its_mode);
    return py.call(function, &.{ text, file, its_mode });
}

/// Before a run. False with an exception set.
pub fn setUp() bool {
    if (py.minor() > 11 or !recursion.usable()) return true;
    inline for (.{ Compile, Exec, Eval, Symtable }) |each|
        each.install() catch |e| if (e == error.Raised) return false;
    return true;
}
