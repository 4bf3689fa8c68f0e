.PHONY: sanitize
sanitize: $(VENV)/.tested ## tests of the core under ASan and UBSan; ARGS="tests/core/test_target.py" for some
	@PYTHON=$(BIN)/python tools/sanitize.sh $(ARGS)
