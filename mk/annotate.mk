.PHONY: annotate
annotate: $(STAMP) ## Cython's annotated HTML of the core in build/annotate; MODULES="router pool" for some
	@$(BIN)/python tools/annotate.py $(MODULES)
