//! golibx.AtomicInt: a counter with operations of one step each, as Go's atomic.Int64. All happen
//! under the interpreter's lock.
const py = @import("../py.zig");
const class = @import("../class.zig");

const Atomic = struct { value: i64 };

fn new(value: i64) Atomic {
    return .{ .value = value };
}

fn add(a: *Atomic, delta: i64) ?i64 {
    const sum, const overflow = @addWithOverflow(a.value, delta);
    if (overflow != 0) {
        const text = "an AtomicInt has 64 bits: {d} with {d} added is out of its range";
        _ = py.raise(py.exc.overflowError(), text, .{ a.value, delta });
        return null;
    }
    a.value = sum;
    return sum;
}

fn load(a: *Atomic) i64 {
    return a.value;
}

fn store(a: *Atomic, value: i64) void {
    a.value = value;
}

fn swap(a: *Atomic, value: i64) ?*py.Object {
    const old = py.PyLong_FromLongLong(a.value) orelse return null;
    a.value = value;
    return old;
}

fn compareAndSwap(a: *Atomic, old: i64, next: i64) bool {
    if (a.value != old) return false;
    a.value = next;
    return true;
}

fn repr(a: *Atomic) ?*py.Object {
    return py.print("<AtomicInt 0x{x} {d}>", .{ class.addressOf(a), a.value });
}

pub const Class = class.Class(Atomic, .{
    .name = "golibx.AtomicInt",
    .doc = "An integer of 64 bits with operations of one step each, as Go's atomic.Int64.",
    .new = class.constructor("AtomicInt(value=0)", new),
    .repr = repr,
    .methods = &.{
        class.method("add(delta=1)", add,
            \\Adds delta, which may be negative, and returns the sum. Raises OverflowError beyond 64
            \\bits, and changes nothing then.
        ),
        class.method("load()", load, "Returns the value."),
        class.method("store(value, /)", store, "Sets the value."),
        class.method("swap(value, /)", swap, "Sets the value and returns the one before."),
        class.method("compare_and_swap(old, new)", compareAndSwap,
            \\Sets the value to new if it is old; returns whether it was.
        ),
    },
});
