//! Python's arguments as Zig values, and Zig's results as Python's.
//!
//! A function is declared with the signature that Python code sees, "wait(timeout=None)", and its
//! Zig parameters, one for each of Python's, say what the arguments are converted to. All else
//! follows from the two when golibx is compiled: how the interpreter calls it, inspect's signature,
//! and the errors for wrong arguments, in the interpreter's own words.
//!
//! A null result is an exception that is set, here as everywhere in zsrc/python.
const std = @import("std");
const py = @import("py.zig");

/// What a call was given, for a function that looks at it itself: one with "*" in its signature.
pub const Given = struct {
    args: py.Args,
    n: usize,
    /// The names of the arguments behind the first `n`, a tuple.
    names: ?*py.Object,

    /// Without the first `count` arguments.
    pub fn after(g: Given, count: usize) Given {
        return .{ .args = g.args + count, .n = g.n - count, .names = g.names };
    }

    pub fn call(g: Given, function: *py.Object) ?*py.Object {
        return py.extra.PyObject_Vectorcall(function, g.args, g.n, g.names);
    }
};

pub const Signature = struct {
    name: [:0]const u8,
    /// As they are written.
    parameters: []const u8,
    names: []const [:0]const u8,
    /// As they are written; null for a parameter that must be given.
    defaults: []const ?[]const u8,
    required: usize,
    by: enum { position, either, itself },
    /// Whether it may be called with names.
    named: bool,

    /// Of a text such as "send(value, timeout=None)": parameters go by position or name, all by
    /// position if "/" is the last, and are left to the function if one of them has a "*".
    pub fn of(comptime text: []const u8) Signature {
        @setEvalBranchQuota(100_000);
        const open = std.mem.findScalar(u8, text, '(').?;
        if (text[text.len - 1] != ')') @compileError("no signature: " ++ text);
        const parameters = text[open + 1 .. text.len - 1];
        const itself = std.mem.findScalar(u8, parameters, '*') != null;
        var names: []const [:0]const u8 = &.{};
        var defaults: []const ?[]const u8 = &.{};
        var required: usize = 0;
        var by = .either;
        if (parameters.len > 0 and !itself) {
            var it = std.mem.splitSequence(u8, parameters, ", ");
            while (it.next()) |parameter| {
                if (by == .position) @compileError("\"/\" must be the last: " ++ text);
                if (std.mem.eql(u8, parameter, "/")) {
                    by = .position;
                    continue;
                }
                const end = std.mem.findScalar(u8, parameter, '=');
                names = names ++ .{parameter[0 .. end orelse parameter.len] ++ ""};
                const default: ?[]const u8 = if (end) |e| parameter[e + 1 ..] else null;
                defaults = defaults ++ .{default};
                if (end == null) required = names.len;
            }
        }
        return .{
            .name = text[0..open] ++ "",
            .parameters = parameters,
            .names = names,
            .defaults = defaults,
            .required = required,
            .by = if (itself) .itself else by,
            .named = if (itself)
                std.mem.find(u8, parameters, "**") != null or
                    std.mem.findScalar(u8, parameters, '=') != null
            else
                by == .either and names.len > 0,
        };
    }

    /// For __doc__, where the interpreter finds __text_signature__. `self`: of a method.
    pub fn doc(comptime s: Signature, comptime self: bool, comptime text: []const u8) [:0]const u8 {
        const before = if (!self)
            ""
        else if (s.by == .position or std.mem.find(u8, s.parameters, "/") != null)
            "$self, "
        else if (s.parameters.len == 0) "$self, /" else "$self, /, ";
        return s.name ++ "(" ++ before ++ s.parameters ++ ")\n--\n\n" ++ text;
    }
};

const O = ?*py.Object;

/// What the interpreter calls for `function`. Its first parameter is what `receiver` makes of the
/// object that it is a method of; null: it is a function of the module's.
pub fn entry(
    comptime s: Signature,
    comptime receiver: anytype,
    comptime function: anytype,
) py.Function {
    const is_method = @TypeOf(receiver) != @TypeOf(null);
    const types = @typeInfo(@TypeOf(function)).@"fn".param_types;
    const looks_itself = types.len > 0 and types[types.len - 1] == Given;
    const F = struct {
        inline fn call(o: O, given: anytype) O {
            if (!is_method) return convertAndCall(s, function, .{}, given);
            const self = receiver(o.?);
            if (@typeInfo(@TypeOf(self)) != .optional)
                return convertAndCall(s, function, .{self}, given);
            return convertAndCall(s, function, .{self orelse return null}, given);
        }
        fn none(o: O, _: O) callconv(.c) O {
            return call(o, [0]O{});
        }
        fn one(o: O, value: O) callconv(.c) O {
            return call(o, [1]O{value});
        }
        fn fast(o: O, args: py.Args, n: py.Ssize) callconv(.c) O {
            return spread(o, args, n, null);
        }
        fn keywords(o: O, args: py.Args, n: py.Ssize, names: O) callconv(.c) O {
            return spread(o, args, n, names);
        }
        inline fn spread(o: O, args: py.Args, n: py.Ssize, names: O) O {
            if (looks_itself)
                return call(o, Given{ .args = args, .n = @intCast(n), .names = names });
            if (s.by == .itself) return call(o, [0]O{});
            if (s.required == s.names.len) return convertAndSpread(o, args, n, names);
            // What is called most often is known to have no other arguments.
            if (n != s.required or names != null)
                return @call(.never_inline, convertAndSpread, .{ o, args, n, names });
            var given: [s.names.len]O = @splat(null);
            inline for (0..s.required) |i| given[i] = args[i];
            return call(o, given);
        }
        fn convertAndSpread(o: O, args: py.Args, n: py.Ssize, names: O) O {
            return call(o, parse(s, args, n, names) orelse return null);
        }
    };
    if (s.named) return .{ .keywords = F.keywords };
    if (looks_itself or s.by == .itself) return .{ .fast = F.fast };
    return switch (s.names.len) {
        0 => .{ .none = F.none },
        1 => if (s.required == 1) .{ .one = F.one } else .{ .fast = F.fast },
        else => .{ .fast = F.fast },
    };
}

/// Calls `function` with the values `before`, and what was `given`, for Python.
pub inline fn convertAndCall(
    comptime s: Signature,
    comptime function: anytype,
    before: anytype,
    given: anytype,
) O {
    return give(convert(s, function, before, given));
}

/// As `convertAndCall`, with the result as it is, or null with an exception set.
pub inline fn convert(
    comptime s: Signature,
    comptime function: anytype,
    before: anytype,
    given: anytype,
) Result(function) {
    const types = @typeInfo(@TypeOf(function)).@"fn".param_types;
    var values: std.meta.ArgsTuple(@TypeOf(function)) = undefined;
    inline for (before, 0..) |value, i| values[i] = value;
    if (@TypeOf(given) == Given) {
        values[before.len] = given;
    } else {
        if (types.len != before.len + given.len)
            @compileError("the parameters of " ++ s.name ++ "() are not those of its Zig function");
        inline for (0..given.len) |i| {
            const T = types[before.len + i].?;
            values[before.len + i] = take(T, s.defaults[i], given[i]) orelse return null;
        }
    }
    return @call(.always_inline, function, values);
}

fn Result(comptime function: anytype) type {
    const T = @typeInfo(@TypeOf(function)).@"fn".return_type.?;
    return if (@typeInfo(T) == .optional) T else ?T;
}

/// A type of golibx's own has `fromPython`, which is given null for an argument that is not there.
inline fn take(comptime T: type, comptime default: ?[]const u8, given: O) ?T {
    if (T == O) return given;
    const is_own = T != bool and T != i32 and T != i64 and T != f64 and T != *py.Object;
    if (is_own) return T.fromPython(given);
    const value = given orelse
        if (default) |text| return comptime byDefault(T, text) else unreachable;
    switch (T) {
        bool => {
            const truth = py.PyObject_IsTrue(value);
            return if (truth < 0) null else truth != 0;
        },
        i32 => {
            const number = integer(value) orelse return null;
            if (std.math.cast(i32, number)) |n| return n;
            _ = py.raise(py.exc.overflowError(), "{d} does not fit into a C int", .{number});
            return null;
        },
        i64 => return integer(value),
        f64 => {
            const number = py.PyFloat_AsDouble(value);
            return if (number == -1 and py.PyErr_Occurred() != null) null else number;
        },
        else => return value,
    }
}

fn byDefault(comptime T: type, comptime text: []const u8) T {
    return switch (T) {
        bool => std.mem.eql(u8, text, "True"),
        i32, i64 => std.fmt.parseInt(T, text, 10) catch unreachable,
        f64 => std.fmt.parseFloat(f64, text) catch unreachable,
        else => @compileError("a parameter that is a *py.Object must be given, not be " ++ text),
    };
}

pub inline fn integer(value: *py.Object) ?i64 {
    const n = py.PyLong_AsLongLong(value);
    return if (n == -1 and py.PyErr_Occurred() != null) null else n;
}

/// A result for Python; an object is a reference that is the caller's.
pub inline fn give(result: anytype) O {
    if (@typeInfo(@TypeOf(result)) != .optional) return object(result);
    return object(result orelse return null);
}

inline fn object(result: anytype) O {
    switch (@typeInfo(@TypeOf(result))) {
        .void => return py.returnNone(),
        .bool => return py.boolean(result),
        .int => |t| return if (t.signedness == .signed)
            py.PyLong_FromLongLong(result)
        else
            py.PyLong_FromUnsignedLongLong(result),
        .float => return py.PyFloat_FromDouble(result),
        else => return if (@TypeOf(result) == *py.Object)
            result
        else
            py.PyUnicode_FromString(result),
    }
}

/// The arguments that a call was given, null for those that were not; null with an exception set.
pub inline fn parse(
    comptime s: Signature,
    args: py.Args,
    n: py.Ssize,
    names: O,
) ?[s.names.len]O {
    const count: usize = @intCast(n);
    if (names == null and count >= s.required and count <= s.names.len) {
        var given: [s.names.len]O = @splat(null);
        inline for (0..given.len) |i| if (i < s.required or i < count) {
            given[i] = args[i];
        };
        return given;
    }
    return bind(s, args, count, names);
}

inline fn bind(comptime s: Signature, args: py.Args, n: usize, names: O) ?[s.names.len]O {
    var given: [s.names.len]O = @splat(null);
    const named: usize = if (names) |tuple| @intCast(py.PyTuple_Size(tuple)) else 0;
    if (n + named > given.len or s.by == .position) {
        wrongCount(&s, n, named);
        return null;
    }
    for (given[0..n], args[0..n]) |*place, value| place.* = value;
    for (0..named) |k| {
        const key = py.PyTuple_GetItem(names.?, @intCast(k)).?;
        const i = inline for (s.names, 0..) |name, i| {
            if (py.PyUnicode_CompareWithASCIIString(key, name) == 0) break i;
        } else {
            raiseKey(&s, "got an unexpected keyword argument", key);
            return null;
        };
        if (given[i] != null) {
            raiseKey(&s, "got multiple values for argument", key);
            return null;
        }
        given[i] = args[n + k];
    }
    for (given[0..s.required], 0..) |value, i| if (value == null) {
        const text = "{s}() missing required argument '{s}' (pos {d})";
        _ = py.raise(py.exc.typeError(), text, .{ s.name, s.names[i], i + 1 });
        return null;
    };
    return given;
}

noinline fn wrongCount(s: *const Signature, n: usize, named: usize) void {
    @branchHint(.cold);
    const exact = s.required == s.names.len;
    const limit = if (n < s.required) s.required else s.names.len;
    const plural = if (limit == 1) "" else "s";
    _ = if (s.by == .position)
        py.raise(py.exc.typeError(), "{s} expected {s}{d} argument{s}, got {d}", .{
            s.name,
            if (exact) "" else if (n < s.required) "at least " else "at most ",
            limit,
            plural,
            n,
        })
    else
        py.raise(py.exc.typeError(), "{s}() takes {s} {d} {s}argument{s} ({d} given)", .{
            s.name,
            if (exact) "exactly" else "at most",
            s.names.len,
            if (n == 0) "keyword " else "",
            if (s.names.len == 1) "" else "s",
            n + named,
        });
}

noinline fn raiseKey(s: *const Signature, what: [*:0]const u8, key: *py.Object) void {
    @branchHint(.cold);
    _ = py.PyErr_Format(py.exc.typeError(), "%s() %s '%U'", s.name.ptr, what, key);
}

/// As `parse`, for the tuple and dict that a type is called with; what it gives is borrowed from
/// them.
pub fn parseNew(comptime s: Signature, args: *py.Object, kwargs: O) ?[s.names.len]O {
    const positional: usize = @intCast(py.PyTuple_Size(args));
    const named: usize = if (kwargs) |kw| @intCast(py.PyDict_Size(kw)) else 0;
    if (s.names.len == 0) {
        if (positional + named == 0) return .{};
        _ = py.raise(py.exc.typeError(), "{s}() takes no arguments", .{s.name});
        return null;
    }
    if (s.by == .position and named > 0) {
        _ = py.raise(py.exc.typeError(), "{s}() takes no keyword arguments", .{s.name});
        return null;
    }
    if (positional + named > s.names.len) {
        wrongCount(&s, positional, named);
        return null;
    }
    var values: [s.names.len]*py.Object = undefined;
    for (values[0..positional], 0..) |*value, i| value.* = py.PyTuple_GetItem(args, @intCast(i)).?;
    if (named == 0) return parse(s, &values, @intCast(positional), null);
    const keys = py.PyTuple_New(@intCast(named)) orelse return null;
    defer py.decref(keys);
    var at: py.Ssize = 0;
    var key: O = null;
    var value: O = null;
    var i: usize = 0;
    while (i < named and py.PyDict_Next(kwargs.?, &at, &key, &value) != 0) : (i += 1) {
        _ = py.PyTuple_SetItem(keys, @intCast(i), py.incref(key.?));
        values[positional + i] = value.?;
    }
    return parse(s, &values, @intCast(positional), keys);
}

/// The argument that is an int between `low` and `high`.
pub fn within(
    value: *py.Object,
    comptime what: []const u8,
    comptime low: i64,
    comptime high: i64,
) ?i64 {
    const n = py.PyLong_AsLongLong(value);
    if (n == -1) {
        if (py.PyErr_Occurred()) |raised| {
            if (py.PyErr_GivenExceptionMatches(raised, py.exc.overflowError()) == 0) return null;
            py.PyErr_Clear();
            _ = py.PyErr_Format(py.exc.valueError(), complaint(what, low, high, "%R"), value);
            return null;
        }
    }
    if (n >= low and n <= high) return n;
    _ = py.raise(py.exc.valueError(), comptime complaint(what, low, high, "{d}"), .{n});
    return null;
}

fn complaint(
    comptime what: []const u8,
    comptime low: i64,
    comptime high: i64,
    comptime given: []const u8,
) [:0]const u8 {
    const print = std.fmt.comptimePrint;
    return comptime if (high == no_limit)
        print("{s} must be at least {d}, not {s}", .{ what, low, given })
    else
        print("{s} must be between {d} and {d}, not {s}", .{ what, low, high, given });
}

/// But that of the machine's integers.
pub const no_limit = std.math.maxInt(i64);
