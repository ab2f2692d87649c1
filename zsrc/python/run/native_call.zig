//! Calling a C function of a type that is known at run time only, without a foreign function
//! library.
//!
//! The calling conventions of x86-64 (System V) and aarch64 (AAPCS64) give integers and
//! floating-point numbers registers of their own, in the order of the arguments of either kind;
//! what finds none goes to the stack, in the order of all arguments, eight bytes each. So one C
//! type covers every mix: as many integers as there are registers for them, eight doubles, and then
//! the words of the stack. A callee that takes fewer does not look at the others. A float is the
//! low half of a double's register. Structures by value are not covered. Apple's aarch64 packs the
//! stack more tightly: none there.
const builtin = @import("builtin");

/// Which platforms this is for.
pub const supported = builtin.os.tag != .windows;
pub const most_integers = if (builtin.cpu.arch == .x86_64) 6 else 8;
pub const most_floats = 8;
pub const most_on_stack = if (builtin.os.tag == .macos and builtin.cpu.arch == .aarch64) 0 else 16;

pub const Call = struct {
    integers: [most_integers]u64 = @splat(0),
    floats: [most_floats]f64 = @splat(0),
    stack: [stack_room]u64 = @splat(0),
    integer_count: usize = 0,
    float_count: usize = 0,
    stack_count: usize = 0,

    const stack_room = 16;

    /// False if there is no place for one more.
    pub fn addInteger(c: *Call, value: u64) bool {
        if (c.integer_count == most_integers) return c.addToStack(value);
        c.integers[c.integer_count] = value;
        c.integer_count += 1;
        return true;
    }

    pub fn addDouble(c: *Call, value: f64) bool {
        if (c.float_count == most_floats) return c.addToStack(@bitCast(value));
        c.floats[c.float_count] = value;
        c.float_count += 1;
        return true;
    }

    pub fn addFloat(c: *Call, value: f32) bool {
        const bits: u32 = @bitCast(value);
        return c.addDouble(@bitCast(@as(u64, bits)));
    }

    fn addToStack(c: *Call, value: u64) bool {
        if (c.stack_count == most_on_stack) return false;
        c.stack[c.stack_count] = value;
        c.stack_count += 1;
        return true;
    }

    pub fn integer(c: *const Call, address: usize) u64 {
        return c.invoke(u64, address);
    }

    pub fn double(c: *const Call, address: usize) f64 {
        return c.invoke(f64, address);
    }

    noinline fn invoke(c: *const Call, comptime R: type, address: usize) R {
        const i = &c.integers;
        const f = &c.floats;
        const s = &c.stack;
        const floats = .{ f[0], f[1], f[2], f[3], f[4], f[5], f[6], f[7] };
        if (c.stack_count == 0) {
            const function: *const RegisterFunction(R) = @ptrFromInt(address);
            return @call(.auto, function, integers(i) ++ floats);
        }
        const function: *const StackFunction(R) = @ptrFromInt(address);
        return @call(.auto, function, integers(i) ++ floats ++ .{
            s[0], s[1], s[2],  s[3],  s[4],  s[5],  s[6],  s[7],
            s[8], s[9], s[10], s[11], s[12], s[13], s[14], s[15],
        });
    }
};

inline fn integers(i: *const [most_integers]u64) Integers {
    return if (most_integers == 6)
        .{ i[0], i[1], i[2], i[3], i[4], i[5] }
    else
        .{ i[0], i[1], i[2], i[3], i[4], i[5], i[6], i[7] };
}

const Integers = if (most_integers == 6)
    struct { u64, u64, u64, u64, u64, u64 }
else
    struct { u64, u64, u64, u64, u64, u64, u64, u64 };

fn RegisterFunction(comptime R: type) type {
    return if (most_integers == 6)
        fn (u64, u64, u64, u64, u64, u64, f64, f64, f64, f64, f64, f64, f64, f64) callconv(.c) R
    else
        fn (
            u64,
            u64,
            u64,
            u64,
            u64,
            u64,
            u64,
            u64,
            f64,
            f64,
            f64,
            f64,
            f64,
            f64,
            f64,
            f64,
        ) callconv(.c) R;
}

// zig fmt: off
fn StackFunction(comptime R: type) type {
    return if (most_integers == 6)
        fn (u64, u64, u64, u64, u64, u64, f64, f64, f64, f64, f64, f64, f64, f64,
            u64, u64, u64, u64, u64, u64, u64, u64, u64, u64, u64, u64, u64, u64, u64, u64,
        ) callconv(.c) R
    else
        fn (u64, u64, u64, u64, u64, u64, u64, u64, f64, f64, f64, f64, f64, f64, f64, f64,
            u64, u64, u64, u64, u64, u64, u64, u64, u64, u64, u64, u64, u64, u64, u64, u64,
        ) callconv(.c) R;
}
// zig fmt: on
