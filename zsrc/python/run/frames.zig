//! What a parked goroutine's Python frames refer to, for golibx.leaked.
//!
//! A frame has its function, a namespace, local variables and a value stack. Frames are as in 3.11
//! to 3.15 (`supported`), which a probe in golibx.leaked confirms.
//!
//! Since 3.14 a frame stores how high its stack is before anything that may run other code, takes
//! off it what it is about to drop, and tells by a tag which of its values it only borrows from its
//! variables. So what it owns can be read off it.
//!
//! Before, only a frame that has called Python code without any C in between has stored how high
//! its stack is; of one that runs an instruction which called C code golibx.leaked tells by the
//! code. It says how many values lie below the instruction's operands, and how many operands the
//! stack still owns while the instruction does what it is for.
//!
//! But it may be past that already: it drops its operands one by one, or an exception takes the
//! stack down value by value, and where one of them ends, a finalizer runs, and may park. What was
//! dropped before can still be seen on the stack, but is not owned any more, maybe freed. Then what
//! is being ended lies on the stack without a reference, or it is of a type with a finalizer, and
//! that is what the next frame runs. What lies above such a value is not believed, nor are operands
//! beside it.
const std = @import("std");
const py = @import("../py.zig");
const whole = @import("../host/whole.zig");
const peek = @import("peek.zig");
const called = @import("../host/called.zig");
const iterated = @import("../host/iterated.zig");

pub fn supported() bool {
    return py.minor() >= 11 and py.minor() <= 15 and peek.layout != null;
}

/// Whether what a frame has are tagged references, as since 3.14.
inline fn tagged() bool {
    return py.minor() >= 14;
}

/// What a frame has in one place.
pub const Slot = struct {
    bits: usize,

    const tags = 3;
    const counted = 0;
    const borrowed = 1;

    /// The object, whether or not it is a reference that counts.
    pub fn object(s: Slot) ?*py.Object {
        if (!tagged()) return @ptrFromInt(s.bits);
        return if (s.bits & tags <= borrowed) @ptrFromInt(s.bits & ~@as(usize, tags)) else null;
    }

    fn owned(s: Slot) ?*py.Object {
        return if (tagged() and s.bits & tags != counted) null else s.object();
    }

    fn lent(s: Slot) ?*py.Object {
        return if (s.bits & tags == borrowed) s.object() else null;
    }
};

/// _PyInterpreterFrame of 3.11 to 3.15.
pub const InterpreterFrame = struct {
    words: [*]const usize,

    pub const owned_by_thread = 0;
    const owned_by_generator = 1;
    const owned_by_interpreter = 3;

    /// Null if it is none, or if the frame has ended.
    pub fn of(frame: *py.Object) ?InterpreterFrame {
        if (@intFromPtr(frame.type) != peek.layout.?.frame_type) return null;
        const field: *const usize = @ptrFromInt(@intFromPtr(frame) + peek.frame_object_frame);
        const f: InterpreterFrame = .{ .words = @ptrFromInt(field.*) };
        return if (f.owner() <= owned_by_generator) f else null;
    }

    fn bytes(f: InterpreterFrame) [*]const u8 {
        return @ptrCast(f.words);
    }

    pub fn owner(f: InterpreterFrame) u8 {
        return f.bytes()[
            switch (py.minor()) {
                11 => 69,
                12, 13 => 70,
                else => 74,
            }
        ];
    }

    fn functionSlot(f: InterpreterFrame) Slot {
        return .{ .bits = f.words[if (py.minor() == 11) 0 else 2] };
    }

    pub fn function(f: InterpreterFrame) ?*py.Object {
        return f.functionSlot().object();
    }

    /// Of a class body, a module, exec(); a function's has none unless f_locals was asked for.
    fn namespace(f: InterpreterFrame) ?*py.Object {
        return @ptrFromInt(f.words[if (py.minor() == 11) 3 else 5]);
    }

    /// Local variables and the value stack: the number of those in use, if it is stored.
    pub fn stored(f: InterpreterFrame) ?usize {
        if (tagged()) {
            const top = f.words[8];
            const bottom = @intFromPtr(f.slots());
            return if (top >= bottom) (top - bottom) / 8 else null;
        }
        const top: *const i32 = @ptrCast(@alignCast(f.bytes() + 64));
        return if (top.* >= 0) @intCast(top.*) else null;
    }

    fn slots(f: InterpreterFrame) [*]const Slot {
        return @ptrCast(f.words + if (tagged()) @as(usize, 10) else 9);
    }

    /// What a local variable, cell or free variable holds.
    pub fn variable(f: InterpreterFrame, i: usize) ?*py.Object {
        return f.slots()[i].object();
    }

    /// The one below it.
    fn previous(f: InterpreterFrame) ?InterpreterFrame {
        const below = f.words[peek.layout.?.frame_previous / 8];
        return if (below == 0) null else .{ .words = @ptrFromInt(below) };
    }

    /// Since 3.14: whether C code has called it. The frame below it is the interpreter's own then.
    pub fn isCalledByC(f: InterpreterFrame) bool {
        const below = f.previous() orelse return true;
        return below.owner() == owned_by_interpreter;
    }

    /// Since 3.12: where the interpreter itself has it run the `__init__` of a class that `outer`
    /// calls, a frame in between, which Python code does not see, has the new object.
    pub fn eachBetween(
        f: InterpreterFrame,
        outer: InterpreterFrame,
        context: anytype,
        comptime visit: fn (@TypeOf(context), *py.Object) void,
    ) void {
        const hidden = f.previous() orelse return;
        const below = hidden.previous() orelse return;
        if (py.minor() < 12 or below.words != outer.words or hidden.owner() != owned_by_thread)
            return;
        const used = hidden.stored() orelse return;
        for (hidden.slots()[0..used]) |slot| if (slot.owned()) |o| visit(context, o);
    }

    /// A generator's frame lies in the generator.
    pub fn isOf(f: InterpreterFrame, generator: *py.Object) bool {
        return f.owner() == owned_by_generator and
            @intFromPtr(f.words) -% @intFromPtr(generator) < generator_header;
    }
};

/// Whether it is what a thread has before it runs Python code, since 3.15.
pub fn isBase(address: usize) bool {
    const f: InterpreterFrame = .{ .words = @ptrFromInt(address) };
    return py.minor() >= 15 and f.owner() == InterpreterFrame.owned_by_interpreter;
}

/// More than a generator has before its frame, less than the frame.
const generator_header = 128;

/// Calls `visit` for each reference that a generator's tp_traverse shows though its frame only
/// borrows it.
pub fn eachLent(
    generator: *py.Object,
    context: anytype,
    comptime visit: fn (@TypeOf(context), *py.Object) void,
) void {
    if (!tagged() or !isGenerator(generator)) return;
    const f = frameIn(generator) orelse return;
    const used = f.stored() orelse return;
    const first: Slot = .{ .bits = f.words[0] };
    for ([_]Slot{ first, f.functionSlot() }) |slot| if (slot.lent()) |o| visit(context, o);
    for (f.slots()[0..used]) |slot| if (slot.lent()) |o| visit(context, o);
}

fn isGenerator(o: *py.Object) bool {
    for ([_]?*py.Type{ generator_type, coroutine_type, async_generator_type }) |t| {
        if (o.type == t) return true;
    }
    return false;
}

/// The frame of a generator that has not ended: it begins with the code.
fn frameIn(generator: *py.Object) ?InterpreterFrame {
    const words: [*]const usize = @ptrCast(@alignCast(generator));
    for (5..generator_header / 8) |i| {
        // Other fields of the generator are no references.
        const address = words[i] & ~@as(usize, Slot.borrowed);
        if (address < 4096 or (peek.word(address +% 8) orelse 0) != peek.layout.?.code_type)
            continue;
        const f: InterpreterFrame = .{ .words = words + i };
        return if (f.owner() == InterpreterFrame.owned_by_generator) f else null;
    }
    return null;
}

// ---- what is measured ----

/// Where PyCodeObject has the number of a frame's local variables, cells and free variables.
var slot_count_offset: usize = 0;
/// Where PyThreadState has the exception that is being handled outside of any generator.
var handled_offset: usize = 0;

pub fn measured() bool {
    return slot_count_offset != 0;
}

pub fn slotCount(frame: *py.Object) usize {
    const code = py.PyFrame_GetCode(@ptrCast(frame));
    defer py.decref(code);
    const field: *const i32 = @ptrFromInt(@intFromPtr(code) + slot_count_offset);
    return @intCast(field.*);
}

/// Looks where `code`, which has `count` variables of all kinds, says so, and
/// where the thread state has the exception that is being handled. False if it cannot be found.
pub fn measure(code: *py.Object, count: i64, handled: *py.Object) bool {
    peek.calibrate();
    if (!supported()) return false;
    if (function_type == null and !loadTypes()) {
        py.PyErr_Clear();
        return false;
    }
    const words: [*]const i32 = @ptrCast(@alignCast(code));
    const at = for (4..48) |i| {
        if (words[i] == count) break i * 4;
    } else return false;
    const state = @intFromPtr(py.PyThreadState_Get());
    handled_offset = findHandled(state, @intFromPtr(handled)) orelse return false;
    slot_count_offset = at;
    return true;
}

/// exc_info points to the innermost of a chain of (exception, next); the last is in the state.
fn findHandled(state: usize, exception: usize) ?usize {
    const first = for (0..64) |i| {
        const item = peek.word(state + i * 8) orelse return null;
        if ((peek.word(item) orelse 0) == exception) break item;
    } else return null;
    var item = first;
    for (0..1000) |_| {
        const next = peek.word(item + 8) orelse return null;
        if (next == 0) return if (item -% state < 1024) item - state else null;
        item = next;
    }
    return null;
}

/// The exception that a goroutine handles, outside of generators, which have their own.
pub fn handledBy(state: *py.ThreadState) ?*py.Object {
    const field: *const ?*py.Object = @ptrFromInt(@intFromPtr(state) + handled_offset);
    return field.*;
}

// ---- what is known of types ----

pub var function_type: ?*py.Type = null;
pub var generator_type: ?*py.Type = null;
var coroutine_type: ?*py.Type = null;
var async_generator_type: ?*py.Type = null;
var slot_wrapper_type: ?*py.Type = null;
var builtin_type: ?*py.Type = null;
pub var method_type: ?*py.Type = null;
var method_descriptor_type: ?*py.Type = null;
pub var tuple_type: ?*py.Type = null;
var build_class: ?*const anyopaque = null;

fn loadTypes() bool {
    function_type = typeNamed("FunctionType") orelse return false;
    generator_type = typeNamed("GeneratorType") orelse return false;
    coroutine_type = typeNamed("CoroutineType") orelse return false;
    async_generator_type = typeNamed("AsyncGeneratorType") orelse return false;
    slot_wrapper_type = typeNamed("WrapperDescriptorType") orelse return false;
    builtin_type = typeNamed("BuiltinFunctionType") orelse return false;
    method_type = typeNamed("MethodType") orelse return false;
    method_descriptor_type = typeNamed("MethodDescriptorType") orelse return false;
    tuple_type = @ptrCast(py.importFrom("builtins", "tuple") orelse return false);
    if (!called.loadTypes() or !iterated.loadTypes()) return false;
    const build = py.importFrom("builtins", "__build_class__") orelse return false;
    defer py.decref(build);
    build_class = if (build.type == builtin_type) py.PyCFunction_GetFunction(build) else null;
    return true;
}

fn typeNamed(name: [*:0]const u8) ?*py.Type {
    return @ptrCast(py.importFrom("types", name) orelse return null);
}

/// Of a type's attribute, borrowed. It runs no code of the program's.
pub fn lookUp(t: *py.Type, name: [*:0]const u8) ?*py.Object {
    const find = py.extra._PyType_Lookup orelse return null;
    const key = py.PyUnicode_InternFromString(name) orelse {
        py.PyErr_Clear();
        return null;
    };
    defer py.decref(key);
    return find(t, key);
}

/// An object as far as one can tell of an address that may have been freed, as its type may.
pub fn looksAlive(o: *py.Object) bool {
    const t = peek.word(@intFromPtr(o) + 8) orelse return false;
    const metaclass = peek.word(t +% 8) orelse return false;
    if (peek.word(t) == null or py.refcount(@ptrFromInt(t)) == 0) return false;
    const of_types = @intFromPtr(function_type.?.ob.type);
    if (metaclass == of_types) return true;
    // Or a class's own metaclass: `t` may be an instance of any type as well.
    if ((peek.word(metaclass +% 8) orelse 0) != of_types) return false;
    return py.PyType_GetFlags(@ptrFromInt(metaclass)) & (1 << 31) != 0; // Py_TPFLAGS_TYPE_SUBCLASS
}

/// The same, for one with fields that are looked at: those of an object that has ended are stale.
pub fn isAlive(o: *py.Object) bool {
    return looksAlive(o) and py.refcount(o) > 0;
}

// ---- the value stack ----

/// Whether a value on the stack may be the one that ends, if what it has called goes on in `inner`.
pub const Value = enum { owned, may_end, ended };

pub fn judge(o: *py.Object, inner: ?InterpreterFrame) Value {
    if (py.refcount(o) == 0) return .ended;
    if (py.getSlot(o.type, "tp_finalize") == null) return .owned;
    const finalizer = lookUp(o.type, "__del__") orelse return .may_end;
    if (finalizer.type == function_type) {
        const f = inner orelse return .owned;
        return if (f.function() == finalizer) .may_end else .owned;
    }
    const f = inner orelse {
        // A finalizer in C calls Python code, if anything, before it waits.
        return if (finalizer.type == slot_wrapper_type) .owned else .may_end;
    };
    // A generator's runs the generator, or closes what it has delegated to.
    if (o.type == generator_type and !f.isOf(o) and !delegates(o)) return .owned;
    return .may_end;
}

fn delegates(generator: *py.Object) bool {
    const to = py.PyObject_GetAttrString(generator, "gi_yieldfrom") orelse {
        py.PyErr_Clear();
        return true;
    };
    defer py.decref(to);
    return to != py.none();
}

/// What golibx.leaked tells of a frame: a tuple of the frame, its instruction, how many values lie
/// below what the instruction takes off the stack, how many of those it still owns, its kind, how
/// many it takes, and what is known of the arguments that the frame itself was called with.
pub const Entry = struct {
    object: *py.Object,
    below: usize,
    operands: usize,
    kind: Kind,
    taken: usize,
    parameters: ?Parameters,

    /// `call_list`: the arguments may be a list, or anything that is iterable: the interpreter
    /// makes a tuple of it.
    pub const Kind = enum {
        plain,
        call,
        call_star,
        with,
        call_list,
        for_iter,
        extend,

        pub fn isCall(kind: Kind) bool {
            return kind == .call or kind == .call_star or kind == .call_list;
        }
    };

    /// Of a function with parameters that never change.
    pub const Parameters = struct {
        /// Those that have a place.
        count: usize,
        /// Which variable has the rest, as in `*args`.
        star: ?usize,
        /// A bit for each of the first that lies in a cell, for closures.
        cells: u64,
    };

    pub fn of(stack: *py.Object, i: usize) Entry {
        const entry = py.PyTuple_GetItem(stack, @intCast(i)).?;
        return .{
            .object = py.PyTuple_GetItem(entry, 0).?,
            .below = number(entry, 2),
            .operands = number(entry, 3),
            .kind = switch (number(entry, 4)) {
                1 => .call,
                2 => .call_star,
                3 => .with,
                4 => .call_list,
                5 => .for_iter,
                6 => .extend,
                else => .plain,
            },
            .taken = number(entry, 5),
            .parameters = parametersOf(py.PyTuple_GetItem(entry, 6).?),
        };
    }

    fn parametersOf(known: *py.Object) ?Parameters {
        if (known == py.none()) return null;
        const star = py.PyLong_AsLongLong(py.PyTuple_GetItem(known, 1).?);
        return .{
            .count = number(known, 0),
            .star = if (star < 0) null else @intCast(star),
            .cells = @bitCast(py.PyLong_AsLongLong(py.PyTuple_GetItem(known, 2).?)),
        };
    }

    fn number(entry: *py.Object, i: py.Ssize) usize {
        const value = py.PyLong_AsLongLong(py.PyTuple_GetItem(entry, i).?);
        return @intCast(std.math.clamp(value, 0, 1 << 20));
    }

    /// Its references. `inner` is the frame that it has called, by `call` if C code is in between
    /// and what it holds is known; the innermost waits on `waits_on`, if that is a single object.
    pub fn eachReference(
        e: Entry,
        inner: ?InterpreterFrame,
        call: ?called.Call,
        waits_on: ?*py.Object,
        context: anytype,
        comptime visit: fn (@TypeOf(context), *py.Object) void,
    ) void {
        const frame = InterpreterFrame.of(e.object) orelse return;
        const slots = frame.slots();
        if (frame.owner() == InterpreterFrame.owned_by_generator) {
            // All but what is not stored is seen by its generator's tp_traverse.
            if (frame.stored() != null) return;
        } else {
            if (frame.functionSlot().owned()) |o| visit(context, o);
            if (frame.namespace()) |o| visit(context, o);
        }
        const variables = slotCount(e.object);
        if (frame.stored()) |used| {
            for (slots[0..used]) |slot| if (slot.owned()) |o| visit(context, o);
            if (!tagged() or e.kind != .call) return;
            const stack: Stack =
                .{ .entry = e, .slots = slots + variables, .inner = inner, .call = call };
            if (stack.classNamespace(e.operandsOf(frame) orelse return)) |o| visit(context, o);
            return;
        }
        if (tagged()) return;
        for (slots[0..variables]) |slot| if (slot.owned()) |o| visit(context, o);
        const stack: Stack =
            .{ .entry = e, .slots = slots + variables, .inner = inner, .call = call };
        stack.eachReference(context, visit);
        if (e.kind == .with) stack.withManager(waits_on, context, visit);
        if (e.kind == .call and e.operands > 0) {
            if (stack.classNamespace(stack.operands())) |o| visit(context, o);
        }
    }

    /// Where the operands of its instruction lie; null if that is not certain.
    pub fn operandsOf(e: Entry, frame: InterpreterFrame) ?[]const Slot {
        const variables = slotCount(e.object);
        if (tagged()) {
            const used = frame.stored() orelse return null;
            if (e.operands == 0 or used < variables + e.operands) return null;
            return frame.slots()[used - e.operands .. used];
        }
        if (frame.stored() != null) return null;
        return (frame.slots() + variables + e.below)[0..@max(2, e.taken)];
    }

    /// What the call that it makes has as its function or method; null if that is not certain.
    pub fn calls(e: Entry, function: *const anyopaque) bool {
        const frame = InterpreterFrame.of(e.object) orelse return false;
        if (!e.kind.isCall()) return false;
        for ((e.operandsOf(frame) orelse return false)[0..2]) |slot| {
            const o = slot.object() orelse continue;
            if (isAlive(o) and o.type == builtin_type and py.PyCFunction_GetFunction(o) == function)
                return true;
        }
        return false;
    }
};

const Stack = struct {
    entry: Entry,
    slots: [*]const Slot,
    inner: ?InterpreterFrame,
    call: ?called.Call,

    fn operands(s: Stack) []const Slot {
        return s.slots[s.entry.below..][0..s.entry.operands];
    }

    fn eachReference(
        s: Stack,
        context: anytype,
        comptime visit: fn (@TypeOf(context), *py.Object) void,
    ) void {
        for (s.slots[0..s.entry.below]) |slot| {
            const o = slot.object() orelse continue;
            const value = judge(o, s.inner);
            if (value != .ended) visit(context, o);
            if (value != .owned) return; // an exception may have taken off all above
        }
        const taken = s.operands();
        if (taken.len == 1) {
            const o = taken[0].object() orelse return;
            if (looksAlive(o) and judge(o, s.inner) != .ended) visit(context, o);
            return;
        }
        if (s.entry.kind.isCall() and !s.isInCall()) return;
        // The arguments may be what ends, and are not among the operands.
        if (s.entry.kind == .call_list and s.inner != null and s.call == null) return;
        if (s.entry.kind == .call_list) if (s.call) |c| if (c.keywords) |o| visit(context, o);
        var may_end: ?*py.Object = null;
        for (taken) |slot| {
            const o = slot.object() orelse continue;
            if (!looksAlive(o)) return;
            switch (judge(o, s.inner)) {
                .owned => {},
                .ended => return,
                .may_end => if (may_end != null) return else {
                    may_end = o;
                },
            }
        }
        if (may_end) |o| return visit(context, o);
        for (taken) |slot| if (slot.object()) |o| visit(context, o);
    }

    /// Afterwards the result lies where the function or NULL was, and a signal handler or the
    /// collector may run.
    fn isInCall(s: Stack) bool {
        const first = s.slots[s.entry.below].object();
        const second = s.slots[s.entry.below + 1].object();
        if (first == null) return true;
        if (!looksAlive(first.?)) return false;
        const receiver = second orelse return py.PyCallable_Check(first.?) != 0;
        // The end of a `with`, which calls __exit__(None, None, None).
        if (receiver == py.none()) return true;
        // A method and what it is of.
        if (!looksAlive(receiver)) return false;
        const function = if (isAlive(first.?)) whole.functionOf(first.?) else first.?;
        if (function.type == function_type)
            return if (s.inner) |f| f.function() == function else false;
        if (first.?.type != method_descriptor_type) return false;
        const of_type: *const *py.Type = @ptrFromInt(@intFromPtr(first.?) + 16); // PyDescrObject
        return py.PyType_IsSubtype(receiver.type, of_type.*) != 0;
    }

    // ---- what C code of the interpreter's holds ----

    /// While a `with` calls __enter__, that and __exit__ are bound methods, which refer to the
    /// manager. The stack has __exit__ in 3.11, and later what it had before: a manager that it
    /// does not own any more.
    fn withManager(
        s: Stack,
        waits_on: ?*py.Object,
        context: anytype,
        comptime visit: fn (@TypeOf(context), *py.Object) void,
    ) void {
        const top = s.slots[s.entry.below].object() orelse return;
        const manager = if (s.inner) |f| enteredBy(f) orelse return else waits_on orelse return;
        if (!binds(manager, "__enter__") or !binds(manager, "__exit__")) return;
        if (py.minor() == 11) {
            // It is owned: the manager before __exit__ is found, and __exit__ then.
            visit(context, top);
            const self = if (top.type == builtin_type or top.type == method_type)
                boundTo(top)
            else
                null;
            if (self == manager) visit(context, manager);
        } else if (top == manager) {
            visit(context, manager);
            visit(context, manager);
        }
    }

    /// PyMethodObject and PyCFunctionObject have it in the same place.
    fn boundTo(method: *py.Object) ?*py.Object {
        const words: [*]const ?*py.Object = @ptrCast(method);
        return words[3];
    }

    fn binds(manager: *py.Object, name: [*:0]const u8) bool {
        const o = whole.functionOf(lookUp(manager.type, name) orelse return false);
        return o.type == function_type or o.type == method_descriptor_type;
    }

    /// The manager with the __enter__, a function in Python, that `f` runs.
    fn enteredBy(f: InterpreterFrame) ?*py.Object {
        if (f.owner() != InterpreterFrame.owned_by_thread) return null;
        const manager = f.variable(0) orelse return null;
        const enter = whole.functionOf(lookUp(manager.type, "__enter__") orelse return null);
        return if (f.function() == enter) manager else null;
    }

    /// The namespace of a class while its body runs: __build_class__() has it.
    fn classNamespace(s: Stack, call: []const Slot) ?*py.Object {
        if (call.len < 4) return null;
        const f = s.inner orelse return null;
        const body = call[2].object() orelse return null;
        if (f.function() != body) return null;
        for (call[0..2]) |slot| {
            const o = slot.object() orelse continue;
            if (isAlive(o) and
                o.type == builtin_type and py.PyCFunction_GetFunction(o) == build_class)
                return f.namespace();
        }
        return null;
    }
};
