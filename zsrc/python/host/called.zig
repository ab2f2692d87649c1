//! What C code between two frames of Python holds of a call: the outer one has made it, the inner
//! one is what it runs.
//!
//! Mostly the interpreter goes from one to the other by itself, and holds nothing. But it calls a
//! bound method, a class or an object with `__call__` by C code, before 3.12 everything in
//! `f(*args)`, and that has references which no stack shows:
//!
//! - a tuple of the arguments, if they came as a list, or not as a tuple at all (`hidesTuple`). It
//!   can be found among all tuples by its items, which are parameters of the inner frame;
//! - with keywords, a copy of all arguments (`eachReference`);
//! - a new object, while its `__init__` runs.
//!
//! As everywhere in leaks.zig a reference that is missed does no harm, and one too many does. So
//! only such items are asked of a tuple that the hidden one has for certain: whichever tuple is
//! then taken for it, each of its items has a reference by the hidden one too.
const py = @import("../py.zig");
const peek = @import("../run/peek.zig");
const frames = @import("../run/frames.zig");
const Entry = frames.Entry;
const InterpreterFrame = frames.InterpreterFrame;
const Slot = frames.Slot;

/// Of a frame, the arguments that surely came by position.
pub const Arguments = struct {
    frame: InterpreterFrame,
    parameters: Entry.Parameters,
    /// The parameters from `first` to `end`, and all of its *args.
    first: usize,
    end: usize,

    /// Null if they are not known, or if one of them may be what the frame is the finalizer of.
    pub fn of(
        frame: InterpreterFrame,
        parameters: Entry.Parameters,
        first: usize,
        keywords: ?*py.Object,
    ) ?Arguments {
        if (first > parameters.count) return null;
        var arguments: Arguments =
            .{ .frame = frame, .parameters = parameters, .first = first, .end = 0 };
        for (0..parameters.count) |i| {
            const o = arguments.parameter(i) orelse return null;
            if (frames.judge(o, frame) != .owned) return null;
        }
        arguments.end = arguments.findEnd(frame.function() orelse return null, keywords) orelse
            return null;
        return arguments;
    }

    /// Parameters after it may have come by a keyword, or by default.
    fn findEnd(a: Arguments, function: *py.Object, keywords: ?*py.Object) ?usize {
        const all = a.parameters.count;
        if (a.parameters.star != null and py.PyTuple_Size(a.rest() orelse return null) > 0)
            return all;
        const defaults = py.PyObject_GetAttrString(function, "__defaults__") orelse {
            py.PyErr_Clear();
            return null;
        };
        defer py.decref(defaults);
        const n: usize = if (defaults == py.none()) 0 else @intCast(py.PyTuple_Size(defaults));
        const without = all - @min(n, all);
        var end = all;
        while (end > @max(a.first, without)) : (end -= 1) {
            if (py.PyTuple_GetItem(defaults, @intCast(end - 1 - without)) != a.parameter(end - 1))
                break;
        }
        for (a.first..end) |i| if (isValueOf(keywords, a.parameter(i))) return i;
        return end;
    }

    fn isValueOf(keywords: ?*py.Object, o: ?*py.Object) bool {
        var position: py.Ssize = 0;
        var key: ?*py.Object = null;
        var value: ?*py.Object = null;
        while (py.PyDict_Next(keywords orelse return false, &position, &key, &value) != 0) {
            if (value == o) return true;
        }
        return false;
    }

    fn parameter(a: Arguments, i: usize) ?*py.Object {
        const o = a.frame.variable(i) orelse return null;
        if (a.parameters.cells >> @intCast(i) & 1 == 0) return o;
        const words: [*]const ?*py.Object = @ptrCast(o);
        return words[2]; // PyCellObject
    }

    /// What its *args has.
    fn rest(a: Arguments) ?*py.Object {
        return a.frame.variable(a.parameters.star orelse return null);
    }

    pub fn count(a: Arguments) usize {
        const more: usize = if (a.rest()) |star| @intCast(py.PyTuple_Size(star)) else 0;
        return a.end - a.first + more;
    }

    pub fn at(a: Arguments, i: usize) ?*py.Object {
        const named = a.end - a.first;
        return if (i < named)
            a.parameter(a.first + i)
        else
            py.PyTuple_GetItem(a.rest().?, @intCast(i - named));
    }

    fn areIn(a: Arguments, tuple: *py.Object) bool {
        const n = a.count();
        if (py.PyTuple_Size(tuple) != n) return false;
        for (0..n) |i| if (py.PyTuple_GetItem(tuple, @intCast(i)) != a.at(i)) return false;
        return true;
    }
};

pub const Call = struct {
    kind: Entry.Kind,
    how: How,
    /// Callable and receiver, then the arguments.
    slots: []const Slot,
    arguments: Arguments,
    keywords: ?*py.Object,

    /// What the callable is.
    const How = enum { function, method, object, init, new, partial };

    /// Null if there is no C code between the frames, or if it is not certain that the inner one
    /// runs what the outer one calls.
    pub fn between(caller: Entry, called: Entry) ?Call {
        if (!caller.kind.isCall()) return null;
        const outer = InterpreterFrame.of(caller.object) orelse return null;
        const frame = InterpreterFrame.of(called.object) orelse return null;
        if (frame.owner() != InterpreterFrame.owned_by_thread) return null;
        if (py.minor() >= 14 and !frame.isCalledByC()) return null;
        const slots = caller.operandsOf(outer) orelse return null;
        const function = frame.function() orelse return null;
        const how = howOf(slots, function) orelse return null;
        if (how == .function and caller.kind == .call) return null;
        if (how == .partial and caller.kind != .call) return null;
        const keywords = if (caller.kind != .call) keywordsIn(slots) else null;
        return .{
            .kind = caller.kind,
            .how = how,
            .slots = slots,
            .arguments = Arguments.of(
                frame,
                called.parameters orelse return null,
                if (how == .function or how == .partial) 0 else 1,
                keywords,
            ) orelse return null,
            .keywords = keywords,
        };
    }

    fn keywordsIn(slots: []const Slot) ?*py.Object {
        const o = (if (slots.len > 3) slots[3].object() else null) orelse return null;
        return if (frames.isAlive(o) and py.isDict(o)) o else null;
    }

    /// One of the first two is NULL, unless it is a method and what it is of.
    fn howOf(slots: []const Slot, function: *py.Object) ?How {
        const first = slots[0].object();
        const second = slots[1].object();
        if (first != null and second != null) return null;
        const callable = first orelse second orelse return null;
        if (!frames.isAlive(callable)) return null;
        if (callable == function) return .function;
        if (functionOf(callable)) |called| return if (called == function) .method else null;
        if (callable.type == partial_type) {
            const words: [*]const ?*py.Object = @ptrCast(callable);
            const partly = words[2] orelse return null;
            return if (partly == function or functionOf(partly) == function) .partial else null;
        }
        if (!py.isType(callable))
            return if (frames.lookUp(callable.type, "__call__") == function) .object else null;
        const class: *py.Type = @ptrCast(callable);
        // Its metaclass may do something else, or do it otherwise.
        const metaclass = class.ob.type;
        if (py.getSlot(metaclass, "tp_call") != py.getSlot(metaclass.ob.type, "tp_call"))
            return null;
        if (frames.lookUp(class, "__init__") == function) return .init;
        const new = frames.lookUp(class, "__new__") orelse return null;
        const words: [*]const ?*py.Object = @ptrCast(new);
        return if (new.type == static_method_type and words[2] == function) .new else null;
    }

    fn functionOf(method: *py.Object) ?*py.Object {
        const words: [*]const ?*py.Object = @ptrCast(method);
        return if (method.type == frames.method_type) words[2] else null;
    }

    /// Whether the interpreter, or C code that it calls, has a tuple of the arguments which is on
    /// no stack.
    pub fn hidesTuple(c: Call) bool {
        if (c.arguments.count() == 0) return false;
        return switch (c.kind) {
            .call_list => true,
            .call => c.how == .init or c.how == .new or c.how == .object,
            else => false,
        };
    }

    /// Whether a tuple has just the arguments that came by position.
    pub fn hasArguments(c: Call, tuple: *py.Object) bool {
        return c.arguments.areIn(tuple);
    }

    /// What the stack had as the arguments before they were made a tuple; maybe it was one.
    pub fn givenTuple(c: Call) ?*py.Object {
        if (c.kind != .call_list) return null;
        const o = c.slots[2].object() orelse return null;
        if (!frames.isAlive(o) or o.type != frames.tuple_type) return null;
        return if (c.hasArguments(o)) o else null;
    }

    /// The references of C code, but for hidden tuples. With keywords, a copy of all arguments is
    /// what is passed on; since 3.15 it has references only to those with a keyword.
    pub fn eachReference(
        c: Call,
        context: anytype,
        comptime visit: fn (@TypeOf(context), *py.Object) void,
    ) void {
        if (c.how == .partial and py.minor() >= 15) {
            const words: [*]const ?*py.Object =
                @ptrCast(c.slots[0].object() orelse c.slots[1].object().?);
            for (words[2..5]) |o| visit(context, o.?);
        }
        if (c.how == .init) visit(context, c.arguments.parameter(0).?);
        if (c.kind == .call or py.PyDict_Size(c.keywords orelse return) == 0) return;
        // A function is given them by the interpreter itself.
        if (c.how == .function and py.minor() > 11) return;
        if (py.minor() < 15) {
            if (c.how == .init or c.how == .new or c.how == .object)
                visit(context, c.arguments.parameter(0).?);
            for (0..c.arguments.count()) |i| visit(context, c.arguments.at(i).?);
        }
        var at: py.Ssize = 0;
        var key: ?*py.Object = null;
        var value: ?*py.Object = null;
        while (py.PyDict_Next(c.keywords.?, &at, &key, &value) != 0) visit(context, value.?);
    }
};

var static_method_type: ?*py.Type = null;
var partial_type: ?*py.Type = null;

/// False with an exception.
pub fn loadTypes() bool {
    static_method_type = @ptrCast(py.importFrom("builtins", "staticmethod") orelse return false);
    partial_type = @ptrCast(py.importFrom("functools", "partial") orelse return false);
    return true;
}
