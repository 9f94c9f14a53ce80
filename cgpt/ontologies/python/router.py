def route(state):
    # Comments, docstrings and strings: text, not code.
    if state.text == "comment" or state.text == "line_comment":
        return "comment"
    if state.text == "docstring":
        if state.inside == "start" or state.inside == "newline":
            return "docstring_line"
        if state.inside == "word":
            return "docstring_word"
        return "docstring_punctuation"
    if state.text == "fstring" or state.text == "format_spec":
        return "format_text"
    if state.text != "code":
        if state.inside == "start":
            return "string_start"
        return "string_text"

    # The start of a statement: the block it stands in decides.
    if state.last == "start":
        if state.line == "first":
            return "first_statement"
        if state.block == "module":
            return "module_statement"
        if state.block == "class":
            return "class_statement"
        if state.block == "function":
            return "function_statement"
        return "nested_statement"
    if state.last == "block_colon" or state.last == "semicolon" or state.slot == "simple":
        return "statement_end"

    # Imports, and the attribute after a dot.
    if state.slot == "import_module" or state.slot == "from_module":
        return "import_module"
    if state.slot == "import_name" or state.slot == "import_as":
        return "import_name"
    if state.last == "dot":
        if state.receiver == "self" or state.receiver == "super":
            return "attribute_of_self"
        if state.receiver == "module" or state.receiver == "imported" or state.receiver == "class":
            return "attribute_of_import"
        return "attribute_of_value"

    # Definitions.
    if state.slot == "def_name" or state.slot == "def_end":
        return "function_header"
    if state.slot == "class_name" or state.slot == "class_end" or state.slot == "base":
        return "class_header"
    if state.slot == "parameter" or state.slot == "lambda_parameter":
        return "parameter"
    if state.slot == "annotation" or state.slot == "return_annotation":
        return "annotation"
    if state.slot == "decorator":
        return "decorator"

    # A name or an attribute stands before, perhaps not complete: where it stands decides.
    if state.last == "name":
        if state.name == "unfinished":
            return "rest_of_name"
        if state.receiver == "self" or state.receiver == "super":
            return "after_attribute_of_self"
        if state.receiver != "none":
            return "after_attribute"
        if state.slot == "expression":
            return "after_statement_name"
        if state.slot == "argument" and state.alone:
            return "after_argument_name"
        if state.slot == "condition" or state.slot == "comprehension_condition":
            return "after_name_in_condition"
        if state.slot == "right_hand_side" or state.slot == "argument" or state.slot == "field":
            return "after_name_in_value"

    # Another complete expression stands before.
    if state.last == "close_call" or state.last == "close_subscript" or state.last == "close_group":
        return "after_bracket"
    if state.last == "string" or state.last == "number" or state.last == "constant":
        return "after_literal"

    # A value is due: brackets first, then the parts of a statement.
    if state.slot == "argument":
        if state.last == "open":
            return "first_argument"
        if state.last == "comma" or state.last == "star":
            return "next_argument"
        return "operand"
    if state.slot == "argument_value" or state.slot == "default":
        return "named_value"
    if state.slot == "subscript":
        return "subscript"
    if state.slot == "key" or state.slot == "value":
        return "dictionary_item"
    if state.slot == "element" or state.slot == "group":
        return "collection_item"
    if state.slot == "comprehension_target" or state.slot == "comprehension_iterable":
        return "comprehension"
    if state.slot == "right_hand_side":
        if state.last == "assign" or state.last == "augmented":
            return "assigned_value"
        return "operand"
    if state.slot == "condition" or state.slot == "comprehension_condition":
        if state.last == "keyword":
            return "condition"
        return "operand"
    if state.slot == "return_value":
        return "return_value"
    if state.slot == "raise_value" or state.slot == "except_type":
        return "exception"
    if state.slot == "for_target" or state.slot == "for_iterable" or state.slot == "with_item":
        return "block_header"
    if state.slot == "as_target" or state.slot == "pattern":
        return "block_header"
    return "operand"
